"""What the Python clients share: the command line of ../README.md, and how results are shown."""
import sys
import threading
import time
import traceback

ended = threading.Event()  # set when the input of consume has ended


def records_in():
    """The records to produce, from lines KEY:VALUE."""
    for line in sys.stdin:
        yield line.rstrip("\n").split(":", 1)


def show(partition, offset, key, value):
    print(partition, offset, key, value, flush=True)


def staged_at(i):
    """The time of record i of a topic that was made for the test, in ms."""
    return 1_700_000_000_000 + 1000 * i


def require(ok, found):
    if not ok:
        raise AssertionError(f"found {found}")


def await_true(what, ok, patience=60):
    end = time.time() + patience
    while not ok():
        require(time.time() < end, f"not in time: {what}")
        time.sleep(0.1)


def perform(operations, how):
    """Does the operations that are asked for and prints "did OPERATION" for those that work."""
    failed = False
    for operation in operations:
        try:
            how[operation]()
            print("did", operation, flush=True)
        except Exception:
            failed = True
            print(operation, "failed:", file=sys.stderr)
            traceback.print_exc()
    if failed:
        sys.exit(1)


def watch_input():
    sys.stdin.read()
    ended.set()


def main(version, **verbs):
    verb, args = sys.argv[1], sys.argv[2:]
    if verb == "version":
        print(version())
        return
    if verb == "consume":
        threading.Thread(target=watch_input, daemon=True).start()
    if verb == "admin":
        args[4:] = args[4].split(",")
    verbs[verb](*args)
