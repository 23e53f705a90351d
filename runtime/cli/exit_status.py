"""What the `pocketbert` command tells the shell."""

MISSED = 1  # a gate of `check` was missed
BAD_INPUT = 2  # bad usage or bad input; a line on stderr says what to do
INTERRUPTED = 130  # 128 + SIGINT, what shells expect
