//! The PROXY protocol header, which names the client of a connection: a codec without IO.
//!
//! Source: "The PROXY protocol, versions 1 & 2", sections 2.1 (text) and 2.2 (binary).

mod wire;
mod decode;
mod encode;

pub use decode::{Decoded, HEADER_BYTES_MAX, InvalidHeader, ProxyAddresses, ProxyHeader, decode};
pub use encode::{ClientInfo, Version, header, local_header};
