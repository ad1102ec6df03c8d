//! Data plane: listeners, TLS, login, upstreams, session loops
