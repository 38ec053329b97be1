"""`python -m service` is `commerce`."""

import signal

# Until a command runs, Ctrl-C ends the process like any other program, instead of with a traceback of the imports. A
# process that was started with SIGINT ignored, as by nohup or in the background of a shell, keeps ignoring it.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from service.cli.main import main

if __name__ == "__main__":
    main()
