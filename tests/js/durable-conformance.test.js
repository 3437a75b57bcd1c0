// The official tests of the protocol, against the server at PENSTOCK_URL.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

runConformanceTests({
  baseUrl: process.env.PENSTOCK_URL,
  subscriptions: true,
  longPollTimeoutMs: Number(process.env.PENSTOCK_LONG_POLL) * 1000,
})
