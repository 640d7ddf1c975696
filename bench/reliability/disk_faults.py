"""Small file systems that fail as disks in the field do.

They are real: the kernel's own errors, in a mount namespace that ends with the program.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

SIZE_MB = 24


def run(*command: object) -> None:
    """Run a command; raise CalledProcessError, with its output, if it fails."""
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


class Disk:
    """A file system in memory; `out`, on it, is where the sinks write.

    Parameters
    ----------
    folder : Path
        Where the mount points go.
    """

    name = ""
    root_only = False
    process: subprocess.Popen[bytes]  # the engine's

    def __init__(self, folder: Path) -> None:
        self.mount = folder / "disk"
        self.keeper = folder / "keeper"  # the same disk, whatever becomes of `mount`
        self.mount.mkdir()
        self.keeper.mkdir()
        self.attach()
        self.out = self.mount / "out"
        self.out.mkdir()

    def attach(self) -> None:
        """Make the file system and mount it."""
        size = f"size={SIZE_MB}m,mode=755"
        run("mount", "-t", "tmpfs", "-o", size, "tmpfs", self.keeper)
        run("mount", "--bind", self.keeper, self.mount)

    def break_it(self) -> None:
        """Start the failure."""
        raise NotImplementedError

    def mend_it(self) -> None:
        """End the failure."""
        raise NotImplementedError

    def pause(self) -> None:
        """Stop the engine's process (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Continue the engine's process."""
        self.process.send_signal(signal.SIGCONT)

    def folders(self) -> list[Path]:
        """Return all folders with files of the sinks."""
        return [self.out]

    def strays(self) -> list[Path]:
        """Return files that the sinks have written to wrong places."""
        return []

    def remove(self) -> None:
        """Unmount it."""
        for mount in (self.mount, self.keeper):
            subprocess.run(["umount", "-l", str(mount)], capture_output=True)


class FullDisk(Disk):
    """Disk that another program fills to the last byte."""

    name = "disk full"

    def break_it(self) -> None:
        """Write until there is no more room."""
        with (self.mount / "ballast").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(65_536)):
                    pass
            except OSError:
                return

    def mend_it(self) -> None:
        """Remove the file that fills the disk."""
        (self.mount / "ballast").unlink()


class ReadOnlyDisk(Disk):
    """ext4 in an image: after an error it is read-only until it is checked.

    What the kernel has not brought to the disk by then is lost whatever a program does,
    but for the journal, which waits for the disk: everything is brought there before.
    """

    name = "read-only"
    root_only = True

    def attach(self) -> None:
        """Make an ext4 file system in a file, and mount it."""
        self.image = self.keeper / "image"
        with self.image.open("wb") as file:
            file.truncate(SIZE_MB * 2 << 20)
        run("mkfs.ext4", "-q", self.image)
        run("mount", "-o", "loop", self.image, self.mount)

    def break_it(self) -> None:
        """Remount read-only, as the kernel does after a disk error."""
        self.pause()
        os.sync()
        run("mount", "-o", "remount,abort", self.mount)
        self.go_on()

    def mend_it(self) -> None:
        """Unmount, check and mount; fails if a sink holds a file open."""
        run("umount", self.mount)
        done = subprocess.run(["e2fsck", "-p", str(self.image)], capture_output=True)
        if done.returncode > 1:
            raise RuntimeError(f"the disk is damaged: {done.stdout.decode()}")
        run("mount", "-o", "loop", self.image, self.mount)


class DeletedFolder(Disk):
    """Folder that is deleted with its content."""

    name = "folder deleted"

    def break_it(self) -> None:
        """Keep the files under other names (hard links), then delete the folder."""
        self.saved = self.mount / "saved"
        self.pause()
        shutil.copytree(self.out, self.saved, copy_function=os.link)
        shutil.rmtree(self.out)
        self.go_on()

    def mend_it(self) -> None:
        """Do nothing: the sinks make the folder again."""

    def folders(self) -> list[Path]:
        """Return the folder, and its deleted content."""
        return [self.saved, self.out]


class RevokedPermission(Disk):
    """Folder without permission to write or list it."""

    name = "permission revoked"

    def break_it(self) -> None:
        """Remove all permissions of the folder."""
        self.out.chmod(0)

    def mend_it(self) -> None:
        """Restore the owner's permissions."""
        self.out.chmod(0o755)


class VanishedMount(Disk):
    """Unmounted disk: its mount point is an empty folder of the disk below."""

    name = "mount vanished"

    def break_it(self) -> None:
        """Unmount it while files on it are open."""
        run("umount", "-l", self.mount)

    def mend_it(self) -> None:
        """Note the files on the disk below, and mount the disk again."""
        self.left = list(self.mount.rglob("*"))
        run("mount", "--bind", self.keeper, self.mount)

    def strays(self) -> list[Path]:
        """Return files that were written to the disk below."""
        return self.left


DISKS: list[type[Disk]] = [
    FullDisk,
    ReadOnlyDisk,
    DeletedFolder,
    RevokedPermission,
    VanishedMount,
]
