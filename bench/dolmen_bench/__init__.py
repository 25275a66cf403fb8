"""The measuring harness: Dolmen and its peers, in turns, on the same machine, in one run.

    command ── what was asked ── cases ── which sides, which load, which figure counts
       │                           ├ sides     dolmen, haproxy, nginx, chain: start, settings, processes
       │                           ├ origin, worker      what stands behind them, the same for all
       │                           ├ wrk, paced, idle    the load
       │                           ├ accounting          processor time and memory, from /proc
       │                           └ rounds              in turns, medians, ratios
       └ result, markdown, chart   what is printed and drawn

Standard library only. It changes nothing on the machine but to install peers that are missing, uses loopback addresses of one
block (127.0.N), and ends everything that it started, by process id.
"""
