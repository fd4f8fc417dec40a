//! Constants of version 2 of the PROXY protocol (section 2.2 of its specification).

use crc::{CRC_32_ISCSI, Crc};

/// The first 12 bytes of version 2, chosen so that no other protocol begins with them.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes before the addresses: the signature, version and command, family, and the number of bytes that follow.
pub(super) const FIXED_BYTES: usize = 16;

/// Version 2, `PROXY`: the addresses are those of the client's connection.
pub(super) const VERSION_2_PROXY: u8 = 0x21;
/// Version 2, `LOCAL`: the sender connects for itself.
pub(super) const VERSION_2_LOCAL: u8 = 0x20;

// Families: the kind of addresses, and the transport.
pub(super) const TCP_OVER_IPV4: u8 = 0x11;
pub(super) const TCP_OVER_IPV6: u8 = 0x21;
pub(super) const UNIX_STREAM: u8 = 0x31;

/// Two IPv4 addresses and two ports.
pub(super) const IPV4_BYTES: usize = 12;
/// Two IPv6 addresses and two ports.
pub(super) const IPV6_BYTES: usize = 36;
/// Two paths of 108 bytes.
pub(super) const UNIX_BYTES: usize = 216;

// Types of the fields (TLVs) that may follow the addresses.
pub(super) const TYPE_ALPN: u8 = 0x01;
pub(super) const TYPE_AUTHORITY: u8 = 0x02;
pub(super) const TYPE_CRC32C: u8 = 0x03;
pub(super) const TYPE_UNIQUE_ID: u8 = 0x05;
pub(super) const TYPE_SSL: u8 = 0x20;

pub(super) static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
