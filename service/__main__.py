"""`python -m service` is `commerce`."""

import gc
import os
import signal

# Until a command runs, Ctrl-C ends the process like any other program, instead of with a traceback of the imports. A
# process that was started with SIGINT ignored, as by nohup or in the background of a shell, keeps ignoring it.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
# The kernel delivers no signal without a handler to process 1 of a container. So without this, a container that is
# stopped while it loads, or while it runs a command that handles no signals, would run on until it is killed.
if os.getpid() == 1:
    for _number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(_number, lambda number, _frame: os._exit(128 + number))

# Loading creates objects that all stay, and to search them for garbage again and again takes a tenth of the time. The
# commands that run for longer than a moment switch the collector on.
gc.disable()

from service.cli.main import main  # noqa: E402 - see above

if __name__ == "__main__":
    main()
