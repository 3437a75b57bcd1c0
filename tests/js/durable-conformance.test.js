// The official tests of the protocol, against the server at PENSTOCK_URL.
import { vi } from "vitest"
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

vi.setConfig({ testTimeout: 30_000 }) // one makes 100,000 assertions: on a busy machine, that is more than 5 seconds

runConformanceTests({
  baseUrl: process.env.PENSTOCK_URL,
  subscriptions: true,
  longPollTimeoutMs: Number(process.env.PENSTOCK_LONG_POLL) * 1000,
})
