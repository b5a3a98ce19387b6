"""Run one command; print its exit status, wall seconds, CPU seconds and peak memory in KiB.

A process of its own, started with `python -I -S`, because Linux counts the memory that a child
shares with its parent before exec as the child's: the parent has to be a small one.
With `pty` as the first word the command gets a terminal; what it draws is thrown away.
"""

import os
import sys
import threading
import time


def drain(master: int) -> None:
    try:
        while os.read(master, 65536):
            pass
    except OSError:  # how Linux says that the last writer closed the terminal
        pass


def terminal() -> list[tuple[int, ...]]:
    import fcntl
    import struct
    import termios

    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    threading.Thread(target=drain, args=(master,), daemon=True).start()
    return [(os.POSIX_SPAWN_DUP2, slave, 1), (os.POSIX_SPAWN_DUP2, slave, 2)]


def main() -> None:
    kind, *command = sys.argv[1:]
    actions = terminal() if kind == "pty" else [(os.POSIX_SPAWN_DUP2, 2, 1)]
    began = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - began
    cpu = used.ru_utime + used.ru_stime
    print(os.waitstatus_to_exitcode(status), wall, cpu, used.ru_maxrss)


if __name__ == "__main__":
    main()
