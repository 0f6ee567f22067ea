//! The pipeline as a `tower` service for clients in the same process.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::BodyExt;

use crate::pipeline;
use crate::response::{BoxError, Response};
use crate::state::State;
use crate::user::User;

/// Serves requests in the name of one user.
#[derive(Clone)]
pub struct Local {
    state: Arc<State>,
    user: Arc<User>,
}

impl Local {
    pub(super) fn new(state: Arc<State>, user: User) -> Self {
        Self { state, user: Arc::new(user) }
    }
}

impl<B> tower::Service<http::Request<B>> for Local
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let (state, user) = (self.state.clone(), (*self.user).clone());
        Box::pin(async move { Ok(pipeline::serve_local(state, request, user).await) })
    }
}
