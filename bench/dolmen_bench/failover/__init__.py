"""bench/run failover: how long clients cannot write after a fault, ours beside Patroni's."""
