//! Composes wire, sql and policy: admits a request, plans and applies masking, scrubs
