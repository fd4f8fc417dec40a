//! The admin port and the Unix admin socket: the API, the metrics and the page.

mod port;
mod admin_flood;
mod admin_socket;
mod api;
mod api_docs;
mod secrets;
mod server_overrides;
mod mixed_load;
mod metrics;
mod metrics_series;
mod prometheus;
mod tls;
mod events;
mod page;
mod page_hostile;
mod page_redraw;
mod page_tabs;
mod page_acts;
