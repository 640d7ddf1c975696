"""Small file systems with failures of disks in the field.

The errors are the kernel's own, in a mount namespace that ends with the program.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

SIZE_MB = 24


def run(*command: object) -> None:
    """Run a command; raise CalledProcessError with its output when it fails."""
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


class Disk:
    """File system in memory; sinks write to its folder `out`.

    Parameters
    ----------
    folder : Path
        Folder of the mount points.
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

    def fail(self) -> None:
        """Make the disk fail from now on."""
        raise NotImplementedError

    def repair(self) -> None:
        """Make the disk work from now on."""
        raise NotImplementedError

    def pause(self) -> None:
        """Stop the engine for an instant."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Continue the engine."""
        self.process.send_signal(signal.SIGCONT)

    def folders(self) -> list[Path]:
        """Return all folders with files of the sinks."""
        return [self.out]

    def misplaced_files(self) -> list[Path]:
        """Return files of the sinks in places where none may be."""
        return []

    def remove(self) -> None:
        """Unmount the disk."""
        for mount in (self.mount, self.keeper):
            subprocess.run(["umount", "-l", str(mount)], capture_output=True)


class FullDisk(Disk):
    """Disk that another program fills to the last byte."""

    name = "disk full"

    def fail(self) -> None:
        """Write until there is no more room."""
        with (self.mount / "ballast").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(65_536)):
                    pass
            except OSError:
                return

    def repair(self) -> None:
        """Remove the file that fills the disk."""
        (self.mount / "ballast").unlink()


class ReadOnlyDisk(Disk):
    """ext4 in an image, which is read-only after an error until it is checked.

    Data that the kernel has not written by then are lost for any program. Everything is
    synchronised before, so that this does not count.
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

    def fail(self) -> None:
        """Abort the file system as the kernel does after an error."""
        self.pause()
        os.sync()
        run("mount", "-o", "remount,abort", self.mount)
        self.go_on()

    def repair(self) -> None:
        """Unmount, check and mount; an open file of a sink would prevent it."""
        run("umount", self.mount)
        done = subprocess.run(["e2fsck", "-p", str(self.image)], capture_output=True)
        if done.returncode > 1:
            raise RuntimeError(f"the disk is damaged: {done.stdout.decode()}")
        run("mount", "-o", "loop", self.image, self.mount)


class DeletedFolder(Disk):
    """The folder is deleted with all its files."""

    name = "folder deleted"

    def fail(self) -> None:
        """Keep the files under other names (hard links), then delete the folder."""
        self.saved = self.mount / "saved"
        self.pause()
        shutil.copytree(self.out, self.saved, copy_function=os.link)
        shutil.rmtree(self.out)
        self.go_on()

    def repair(self) -> None:
        """Do nothing: the sinks create the folder again."""

    def folders(self) -> list[Path]:
        """Return the folder, and the files of the deleted one."""
        return [self.saved, self.out]


class RevokedPermission(Disk):
    """The permissions of the folder are removed."""

    name = "permission revoked"

    def fail(self) -> None:
        """Remove all permissions."""
        self.out.chmod(0)

    def repair(self) -> None:
        """Restore the permissions of the owner."""
        self.out.chmod(0o755)


class VanishedMount(Disk):
    """The disk is unmounted; its mount point is an empty folder of the disk below."""

    name = "mount vanished"

    def fail(self) -> None:
        """Unmount the disk while files on it are open."""
        run("umount", "-l", self.mount)

    def repair(self) -> None:
        """Record the files on the disk below; mount the disk again."""
        self.left = list(self.mount.rglob("*"))
        run("mount", "--bind", self.keeper, self.mount)

    def misplaced_files(self) -> list[Path]:
        """Return files that were written on the disk below."""
        return self.left


DISKS: list[type[Disk]] = [
    FullDisk,
    ReadOnlyDisk,
    DeletedFolder,
    RevokedPermission,
    VanishedMount,
]
