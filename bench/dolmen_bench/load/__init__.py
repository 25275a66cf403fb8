"""The load: as fast as answers come (wrk), at a steady rate (paced), or none at all on open connections (idle)."""
