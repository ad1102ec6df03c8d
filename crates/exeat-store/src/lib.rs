//! Durable state: the audit record and its keys
