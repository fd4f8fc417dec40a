//! Servers that a URL lists. It is asked again and again.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::header::{ACCEPT, ETAG, HeaderValue, IF_NONE_MATCH};
use hyper::{Request, StatusCode};
use rustls::ClientConfig;
use tokio::time::{sleep, timeout};

use super::file::json;
use super::source::{FollowFuture, Reports, ServerList, ServerSource};
use crate::blocking::blocking;
use crate::error::chain;
use crate::http_client::{connect, exchange, take_url, uses_tls};
use crate::plan::{HttpSourcePlan, listed_entries};
use crate::pool::MemberConfig;
use crate::text::Reason;
use crate::tls::client_config;
use crate::units::format_duration;

/// How long one request may take, with its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest response: enough for 10,000 servers with all their keys.
const BODY_BYTES_MAX: usize = 4 << 20;

/// A URL that answers with a list of servers.
pub(super) struct HttpSource {
    plan: HttpSourcePlan,
    defaults: MemberConfig,
    /// The latest list and its `ETag`; `None`: there is no list yet, or the latest has no `ETag`.
    tagged: Option<(HeaderValue, ServerList)>,
}

impl HttpSource {
    pub(super) fn new(plan: HttpSourcePlan, defaults: MemberConfig) -> Self {
        Self {
            plan,
            defaults,
            tagged: None,
        }
    }

    /// Asks until a request fails. Each call with a URL of https reads the trusted authorities again.
    async fn run(&mut self, reports: &Reports) -> Box<dyn Error + Send + Sync> {
        let (ca_file, with_tls) = (self.plan.ca_file.clone(), uses_tls(&self.plan.url));
        let read = move || Ok(with_tls.then(|| client_config(ca_file.as_deref(), None)).transpose()?);
        let tls = match blocking(read).await {
            Ok(tls) => tls,
            Err(error) => return error,
        };
        loop {
            match timeout(REQUEST_TIMEOUT, self.ask(tls.clone())).await {
                Ok(Ok(list)) => reports.report(Ok(list)),
                Ok(Err(error)) => return error,
                Err(_) => return format!("no answer within {}", format_duration(REQUEST_TIMEOUT)).into(),
            }
            // The interval, up to a quarter shorter or longer, so that the requests of many balancers spread out.
            sleep(self.plan.interval.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        }
    }

    /// Asks once. If the HTTP server says that the list has not changed, returns the previous list (RFC 9110, section
    /// 13.1.2).
    async fn ask(&mut self, tls: Option<Arc<ClientConfig>>) -> Result<ServerList, Box<dyn Error + Send + Sync>> {
        let mut request = Request::get(self.plan.url.clone()).header(ACCEPT, "application/json");
        if let Some((tag, _)) = &self.tagged {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let mut request = request.body(Full::default())?;
        let stream = connect(&take_url(&mut request)?, tls).await?;
        let response = exchange(stream, request, BODY_BYTES_MAX).await?;
        match (response.status(), &self.tagged) {
            (StatusCode::NOT_MODIFIED, Some((_, same))) => return Ok(same.clone()),
            (StatusCode::OK, _) => {}
            (status, _) => return Err(format!("the server answers {status}").into()),
        }
        let tag = response.headers().get(ETAG).cloned();
        let text = std::str::from_utf8(response.body()).map_err(|_| "the answer is not UTF-8")?;
        let entries = json(text).and_then(|listed| listed_entries(listed, self.defaults));
        let list = ServerList::from(entries.map_err(|reason| reason.to_string())?);
        self.tagged = tag.map(|tag| (tag, list.clone()));
        Ok(list)
    }
}

impl ServerSource for HttpSource {
    fn follow<'a>(&'a mut self, reports: &'a Reports) -> FollowFuture<'a> {
        Box::pin(async { Reason::from(chain(&*self.run(reports).await)) })
    }
}
