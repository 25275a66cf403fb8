-- Prints what wrk counted as one line of JSON. Only `done` is set: nothing of this runs while it sends requests.
done = function(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "duration_us": %d, "bytes": %d, "failed": %d, ' ..
      '"p50_us": %d, "p99_us": %d, "p99_9_us": %d, "max_us": %d}\n',
      summary.requests, summary.duration, summary.bytes,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max))
end
