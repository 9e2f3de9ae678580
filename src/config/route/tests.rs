//! What routes say of requests and filters.
