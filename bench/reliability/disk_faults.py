"""Small file systems that fail in ways in which disks in the field do.

They are real: the kernel's own errors, in a mount namespace that ends with the program.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

SIZE_MB = 24


def run(*command: object) -> None:
    """Run a command; CalledProcessError, with what it said, when it fails."""
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
        """From now on it fails."""
        raise NotImplementedError

    def mend_it(self) -> None:
        """From now on it works again."""
        raise NotImplementedError

    def pause(self) -> None:
        """Let the engine stand still for an instant."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def folders(self) -> list[Path]:
        """Where files of the sinks are, all of them together."""
        return [self.out]

    def strays(self) -> list[Path]:
        """Files that the sinks have written where they never should."""
        return []

    def remove(self) -> None:
        """Unmount it."""
        for mount in (self.mount, self.keeper):
            subprocess.run(["umount", "-l", str(mount)], capture_output=True)


class FullDisk(Disk):
    """Another program fills the disk to the last byte."""

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
        """Remove what fills it."""
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
        """What the kernel does when the disk makes an error."""
        self.pause()
        os.sync()
        run("mount", "-o", "remount,abort", self.mount)
        self.go_on()

    def mend_it(self) -> None:
        """What a person does then; a sink that holds a file would forbid it."""
        run("umount", self.mount)
        done = subprocess.run(["e2fsck", "-p", str(self.image)], capture_output=True)
        if done.returncode > 1:
            raise RuntimeError(f"the disk is damaged: {done.stdout.decode()}")
        run("mount", "-o", "loop", self.image, self.mount)


class DeletedFolder(Disk):
    """Somebody deletes the folder with all that is in it."""

    name = "folder deleted"

    def break_it(self) -> None:
        """Keep the files under other names (hard links), then delete the folder."""
        self.saved = self.mount / "saved"
        self.pause()
        shutil.copytree(self.out, self.saved, copy_function=os.link)
        shutil.rmtree(self.out)
        self.go_on()

    def mend_it(self) -> None:
        """Nothing: the sinks make it again by themselves."""

    def folders(self) -> list[Path]:
        """The folder, and what of it was deleted."""
        return [self.saved, self.out]


class RevokedPermission(Disk):
    """Somebody takes away the permission to write, or even to look, there."""

    name = "permission revoked"

    def break_it(self) -> None:
        """Nobody may do anything there."""
        self.out.chmod(0)

    def mend_it(self) -> None:
        """Its owner may again."""
        self.out.chmod(0o755)


class VanishedMount(Disk):
    """The disk is taken out; its mount point is an empty folder of the disk below."""

    name = "mount vanished"

    def break_it(self) -> None:
        """Take it out while files on it are open."""
        run("umount", "-l", self.mount)

    def mend_it(self) -> None:
        """See what the sinks have left on the disk below; put it in again."""
        self.left = list(self.mount.rglob("*"))
        run("mount", "--bind", self.keeper, self.mount)

    def strays(self) -> list[Path]:
        """What was written on the disk below."""
        return self.left


DISKS: list[type[Disk]] = [
    FullDisk,
    ReadOnlyDisk,
    DeletedFolder,
    RevokedPermission,
    VanishedMount,
]
