"""`python -m tests.faults.node`: the program `hermod`, in which leases may be as short as a test needs.

The contract has leases of a minute at least. Here the bound is LEASE seconds, so that leases run
out while processes are paused, cut off or dead, many times in a run. Nothing else differs, and who
imports this changes nothing.
"""

import queues.limits

LEASE = 3  # seconds of a lease of the load

if __name__ == "__main__":
    queues.limits.MIN_TTL = LEASE  # before anybody else takes it from there

    from transport.cli import main

    main()
