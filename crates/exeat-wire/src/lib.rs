//! PostgreSQL v3 messages and protocol state: bytes in, typed messages out
