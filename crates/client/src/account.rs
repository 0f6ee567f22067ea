//! Clients that act as service accounts, each by a token that is asked for with the process's own credentials and renewed
//! before it expires: how controllers get no more rights than their own role gives them
//! (kube-controller-manager's `--use-service-account-credentials`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::client::{Body, ConfigExt};
use kube::{Api, Client};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tower::filter::AsyncFilter;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer};

use crate::metrics::Counting;
use crate::transport::{RemoteError, counted, settings, unusable};

/// What is asked for; the server may give less.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Makes clients for service accounts of one namespace. Their connections are shared.
#[derive(Clone)]
pub struct Accounts {
    namespace: String,
    own: Client,
    settings: kube::Config,
    transport: Transport,
}

type Transport = BoxCloneSyncService<Request<Body>, Response<Incoming>, legacy::Error>;

impl Accounts {
    /// Accounts in `namespace`, whose tokens are asked for as the current context of the kubeconfig file at `path`.
    pub async fn open(path: &Path, namespace: &str) -> Result<Self, RemoteError> {
        let settings = settings(path).await?;
        let connector = settings.rustls_https_connector().map_err(|source| unusable(path, source))?;
        let own = counted(settings.clone()).map_err(|source| unusable(path, source))?;
        let transport = BoxCloneSyncService::new(legacy::Client::builder(TokioExecutor::new()).build(connector));
        Ok(Self { namespace: namespace.to_owned(), own, settings, transport })
    }

    /// A client that acts as the account `name`, which is made if it does not exist.
    #[must_use]
    pub fn acting_as(&self, name: &str) -> Client {
        let account = Arc::new(Account {
            accounts: Api::namespaced(self.own.clone(), &self.namespace),
            name: name.to_owned(),
            token: Mutex::new(None),
        });
        let authorized = AsyncFilter::new(self.transport.clone(), move |request| account.clone().authorize(request));
        let counted = Counting::to(&self.settings.cluster_url).layer(authorized);
        Client::new(self.settings.base_uri_layer().layer(counted), &self.namespace)
    }
}

struct Account {
    accounts: Api<ServiceAccount>,
    name: String,
    token: Mutex<Option<Token>>,
}

struct Token {
    header: HeaderValue,
    renew_at: Instant,
}

impl Account {
    fn authorize(self: Arc<Self>, mut request: Request<Body>) -> BoxFuture<'static, Result<Request<Body>, BoxError>> {
        Box::pin(async move {
            // Held while a token is asked for, so that many first requests ask once.
            let mut token = self.token.lock().await;
            if token.as_ref().is_none_or(|token| token.renew_at <= Instant::now()) {
                *token = Some(self.request_token().await?);
            }
            let header = token.as_ref().map(|token| token.header.clone());
            request.headers_mut().extend(header.map(|header| (AUTHORIZATION, header)));
            Ok(request)
        })
    }

    async fn request_token(&self) -> Result<Token, BoxError> {
        let seconds = i64::try_from(LIFETIME.as_secs()).unwrap_or(i64::MAX);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(seconds), ..TokenRequestSpec::default() }),
            ..TokenRequest::default()
        };
        let params = PostParams::default();
        let ask = || self.accounts.create_subresource("token", &self.name, &params, &request);
        let answer: TokenRequest = match ask().await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.create().await?;
                ask().await?
            }
            answer => answer?,
        };
        let status = answer.status.unwrap_or_default();
        let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err("the answer to a token request has no token".into());
        };
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))?;
        header.set_sensitive(true);
        let left = expires.0.duration_since(jiff::Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default();
        Ok(Token { header, renew_at: Instant::now() + left.mul_f64(0.8) })
    }

    async fn create(&self) -> kube::Result<()> {
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        match self.accounts.create(&PostParams::default(), &account).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            answer => answer.map(drop),
        }
    }
}
