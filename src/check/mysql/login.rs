//! The login ("Connection Phase" in the chapter "Client/Server Protocol" of the MySQL source code documentation), with
//! the plugins `mysql_native_password` and `caching_sha2_password`.
//!
//! ```text
//!  server                                        check
//!  greeting: version, scramble, plugin  ──────►
//!                                       ◄──────  SSLRequest, and the TLS handshake, if `tls` is given and the
//!                                                server offers TLS
//!                                       ◄──────  response: user, proof, plugin
//!  AuthSwitchRequest: plugin, scramble  ──────►  if the account has another plugin
//!                                       ◄──────  proof
//!  AuthMoreData: 4                      ──────►  caching_sha2_password, if the server does not remember the password
//!                                       ◄──────  the password: in clear text within TLS or over a Unix socket,
//!                                                otherwise encrypted by the server's key, which the check requests
//!  OK or ERR                            ──────►
//! ```

use std::io;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use rustls::ClientConfig;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

use super::packet::{Fields, MysqlFailure, Packets, malformed};
use crate::check::CheckTarget;

/// The protocol version that a greeting begins with.
const PROTOCOL_VERSION: u8 = 10;

/// Capability flags.
const LONG_PASSWORD: u32 = 1;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;

/// utf8mb4_general_ci, which every version from 5.5 on has.
const CHARSET: u8 = 45;

/// The first byte of a packet from the server.
const OK: u8 = 0;
const AUTH_MORE_DATA: u8 = 1;
const AUTH_SWITCH_REQUEST: u8 = 0xfe;

/// ER_NOT_SUPPORTED_AUTH_MODE
const NOT_SUPPORTED_AUTH_MODE: u16 = 1251;

/// The length of a scramble. A scramble is the server's random challenge, on which a proof depends.
const SCRAMBLE_BYTES: usize = 20;

/// The user to log in as.
pub(super) struct Account<'a> {
    pub(super) user: &'a str,
    pub(super) password: Vec<u8>,
}

/// An authentication plugin: a way to prove to the server that the check knows the password.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plugin {
    Native,
    CachingSha2,
}

/// Logs in. `tls`: the TLS configuration, and the server. TLS is used only if `tls` is given and the server offers TLS.
///
/// # Errors
/// The server denies the login; the account needs another plugin; the server sends something malformed; the connection
/// fails.
pub(super) async fn log_in(
    mut packets: Packets,
    account: &Account<'_>,
    tls: Option<(&Arc<ClientConfig>, &CheckTarget)>,
) -> Result<Packets, MysqlFailure> {
    let greeting = packets.receive().await?;
    let greeting = Greeting::read(&greeting).ok_or_else(malformed)?;
    let mut capabilities = LONG_PASSWORD | PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH;
    if let Some((config, target)) = tls
        && greeting.capabilities & SSL != 0
    {
        capabilities |= SSL;
        packets.send(&response_head(capabilities)).await?;
        packets = packets.start_tls(Arc::clone(config), target).await?;
    }
    let plugin = Plugin::named(greeting.plugin).unwrap_or(Plugin::Native);
    let proof = plugin.proof(&account.password, &greeting.scramble);
    let mut response = response_head(capabilities);
    response.extend_from_slice(account.user.as_bytes());
    response.push(0);
    response.push(u8::try_from(proof.len()).expect("a digest is short"));
    response.extend_from_slice(&proof);
    response.extend_from_slice(plugin.name());
    response.push(0);
    packets.send(&response).await?;
    finish(&mut packets, account, plugin, greeting.scramble).await?;
    Ok(packets)
}

/// Answers the server's requests until the server accepts or denies the login. A denial is an ERR packet, on which
/// [`Packets::receive`] fails.
async fn finish(
    packets: &mut Packets,
    account: &Account<'_>,
    mut plugin: Plugin,
    mut scramble: [u8; SCRAMBLE_BYTES],
) -> Result<(), MysqlFailure> {
    let mut may_switch = true;
    loop {
        let packet = packets.receive().await?;
        let (&kind, rest) = packet.split_first().ok_or_else(malformed)?;
        match kind {
            OK => return Ok(()),
            AUTH_SWITCH_REQUEST if may_switch => {
                may_switch = false;
                let mut fields = Fields(rest);
                let name = fields.terminated().ok_or_else(malformed)?;
                plugin = match Plugin::named(name) {
                    Some(known) => known,
                    None if account.password.is_empty() => plugin, // without a password, no proof is needed
                    None => return Err(unknown_plugin(name)),
                };
                scramble = read_scramble(&mut fields).ok_or_else(malformed)?;
                let mut proof = plugin.proof(&account.password, &scramble);
                if proof.is_empty() && plugin == Plugin::CachingSha2 {
                    proof.push(0); // without a password, this plugin sends a zero byte after a switch
                }
                packets.send(&proof).await?;
            }
            AUTH_MORE_DATA if plugin == Plugin::CachingSha2 => match rest {
                [3] => {} // the server remembers the password; OK follows
                [4] if packets.is_secure() => packets.send(&terminated(&account.password)).await?,
                [4] => packets.send(&[2]).await?, // asks for the server's key
                key => packets.send(&encrypt(&account.password, &scramble, key)?).await?,
            },
            _ => return Err(malformed()),
        }
    }
}

/// What the server sends first.
struct Greeting<'a> {
    capabilities: u32,
    scramble: [u8; SCRAMBLE_BYTES],
    plugin: &'a [u8],
}

impl<'a> Greeting<'a> {
    fn read(packet: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(packet);
        if fields.u8()? != PROTOCOL_VERSION {
            return None;
        }
        fields.terminated()?; // the version of the server
        fields.bytes(4)?; // the number of the connection
        let first_part = fields.bytes(8)?;
        fields.bytes(1)?; // a zero byte
        let low = fields.u16()?;
        fields.bytes(3)?; // character set, status
        let high = fields.u16()?;
        fields.bytes(11)?; // the length of the scramble, reserved bytes
        let second_part = fields.bytes(12)?;
        fields.bytes(1)?; // a zero byte
        let scramble = [first_part, second_part].concat();
        Some(Self {
            capabilities: u32::from(low) | u32::from(high) << 16,
            scramble: scramble.try_into().ok()?,
            plugin: fields.terminated().unwrap_or_default(),
        })
    }
}

/// The scramble at the end of an AuthSwitchRequest.
fn read_scramble(fields: &mut Fields<'_>) -> Option<[u8; SCRAMBLE_BYTES]> {
    fields.bytes(SCRAMBLE_BYTES)?.try_into().ok()
}

/// An SSLRequest. The response begins with the same bytes.
fn response_head(capabilities: u32) -> Vec<u8> {
    let packet_bytes_max: u32 = 1 << 24;
    let mut head = [capabilities.to_le_bytes(), packet_bytes_max.to_le_bytes()].concat();
    head.push(CHARSET);
    head.extend_from_slice(&[0; 23]);
    head
}

impl Plugin {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Native => b"mysql_native_password",
            Self::CachingSha2 => b"caching_sha2_password",
        }
    }

    fn named(name: &[u8]) -> Option<Self> {
        [Self::Native, Self::CachingSha2]
            .into_iter()
            .find(|plugin| plugin.name() == name)
    }

    /// The proof, for this scramble, that the password is known. Empty: there is no password.
    fn proof(self, password: &[u8], scramble: &[u8]) -> Vec<u8> {
        if password.is_empty() {
            return Vec::new();
        }
        let algorithm = match self {
            Self::Native => &SHA1_FOR_LEGACY_USE_ONLY,
            Self::CachingSha2 => &SHA256,
        };
        let once = digest(algorithm, password);
        let twice = digest(algorithm, once.as_ref());
        let salted = match self {
            Self::Native => [scramble, twice.as_ref()].concat(),
            Self::CachingSha2 => [twice.as_ref(), scramble].concat(),
        };
        xor(once.as_ref(), digest(algorithm, &salted).as_ref())
    }
}

/// The failure if the account has a plugin that the check does not know. It has the form of a server's error, so that
/// the server counts as alive.
fn unknown_plugin(name: &[u8]) -> MysqlFailure {
    MysqlFailure::Server {
        code: NOT_SUPPORTED_AUTH_MODE,
        message: format!(
            "the user has the plugin {}: use mysql_native_password or caching_sha2_password",
            String::from_utf8_lossy(name)
        ),
    }
}

/// The password, encrypted by the server's key, as `caching_sha2_password` takes it over plain TCP.
fn encrypt(password: &[u8], scramble: &[u8], key: &[u8]) -> Result<Vec<u8>, MysqlFailure> {
    let failed = |what: &str| MysqlFailure::Io(io::Error::other(format!("caching_sha2_password: {what}")));
    let key = SubjectPublicKeyInfoDer::from_pem_slice(key).map_err(|_| failed("the server sent no key"))?;
    let invalid = "the server's key is invalid";
    let key = PublicEncryptingKey::from_der(&key).map_err(|_| failed(invalid))?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| failed(invalid))?;
    let masked = xor(&terminated(password), scramble);
    let mut encrypted = vec![0; key.ciphertext_size()];
    let written = key.encrypt(&OAEP_SHA1_MGF1SHA1, &masked, &mut encrypted, None);
    Ok(written
        .map_err(|_| failed("the password is too long for the server's key"))?
        .to_vec())
}

fn terminated(password: &[u8]) -> Vec<u8> {
    [password, b"\0"].concat()
}

/// Combines bytes with those of a mask; the mask is repeated.
fn xor(bytes: &[u8], mask: &[u8]) -> Vec<u8> {
    bytes.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The proofs that PyMySQL sends for the password "secret" and the scramble 1, 2, …, 20.
    const NATIVE: &[u8] = &[
        0xb3, 0x2b, 0xb3, 0xa5, 0x83, 0xe1, 0x34, 0x0c, 0x0a, 0x11, 0x08, 0xd5, 0x8b, 0x1b, 0xe4, 0x97, 0x81, 0xad,
        0x8c, 0x2f,
    ];
    const CACHING_SHA2: &[u8] = &[
        0x74, 0x6e, 0xbe, 0x20, 0x5d, 0x56, 0xa0, 0x70, 0x7a, 0xcb, 0x3e, 0x79, 0x6e, 0x83, 0x4e, 0x0d, 0xd7, 0xb1,
        0xd6, 0x17, 0x43, 0xb2, 0x6b, 0xd5, 0x20, 0x2c, 0x7a, 0x62, 0x32, 0x30, 0xc7, 0xc9,
    ];

    #[test]
    fn proofs_equal_those_of_pymysql_and_are_empty_without_a_password() {
        let scramble: [u8; SCRAMBLE_BYTES] = std::array::from_fn(|index| index as u8 + 1);
        for (plugin, proof) in [(Plugin::Native, NATIVE), (Plugin::CachingSha2, CACHING_SHA2)] {
            assert_eq!(plugin.proof(b"secret", &scramble), proof);
            assert_eq!(plugin.proof(b"", &scramble), b"");
        }
    }
}
