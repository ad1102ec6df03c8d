//! Routes that know themselves: whatever the API answers is on the list its description is held against.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, on};

use crate::handles::BODY_BYTES_MAX;

/// A router in the making, and what it answers.
pub(crate) struct Routes<S> {
    router: Router<S>,
    known: Vec<(Method, &'static str)>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(crate) fn new() -> Self {
        Self { router: Router::new(), known: Vec::new() }
    }

    pub(crate) fn get<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.on((Method::GET, MethodFilter::GET), path, handler)
    }

    pub(crate) fn post<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.on((Method::POST, MethodFilter::POST), path, handler)
    }

    pub(crate) fn delete<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.on((Method::DELETE, MethodFilter::DELETE), path, handler)
    }

    fn on<H: Handler<T, S>, T: 'static>(
        mut self,
        (method, filter): (Method, MethodFilter),
        path: &'static str,
        handler: H,
    ) -> Self {
        self.known.push((method, path));
        self.router = self.router.route(path, on(filter, handler));
        self
    }

    /// Bodies are short everywhere.
    pub(crate) fn router(self, state: S) -> Router {
        self.router.layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(state)
    }

    #[cfg(test)]
    pub(crate) fn known(&self) -> Vec<(Method, &'static str)> {
        self.known.clone()
    }
}
