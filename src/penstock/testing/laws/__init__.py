"""The laws of a store, by subject: every sentence of the contract in `penstock.core.ports` as a test."""
