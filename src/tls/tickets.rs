//! Tickets by which clients resume their TLS sessions on any machine of a fleet (RFC 5077; RFC 8446, section 4.6.1).
//!
//! ```text
//! ticket: name of the key (16) | nonce (12) | AES-256-GCM of { time of issue (8) | state of the session } | tag (16)
//! ```
//! The numbers are lengths in bytes.
//!
//! The keys are derived from secrets that all machines of a fleet share, and from the policy for clients' certificates.
//! The policy is included because rustls does not verify a client's certificate again when its session is resumed: a
//! ticket must not outlive the policy under which it was issued. A listener without such secrets uses the tickets of
//! rustls.

use std::fmt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use super::client_auth::PolicyHash;
use super::file::{TlsFileError, read};
use super::words::unix_now;

/// How long a ticket may be used, in seconds.
const LIFETIME: u32 = 12 * 60 * 60;

/// The shortest secret, in bytes: as long as a key that is derived from it.
const SECRET_BYTES_MIN: usize = 32;

/// The most secrets in a file: enough for a new one each day, kept for two weeks.
const SECRETS_MAX: usize = 16;

const KEY_NAME_BYTES: usize = 16;
const TIME_BYTES: usize = 8;

/// The secrets that ticket keys are derived from. The key of the first secret encrypts, those of all secrets decrypt.
pub(super) struct TicketSecrets(Vec<Zeroizing<Vec<u8>>>);

impl TicketSecrets {
    /// Reads the secrets: the lines of the file that are not empty.
    pub(super) fn read(path: &Path) -> Result<Self, TlsFileError> {
        let text = read(path)?;
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let secrets: Vec<_> = lines
            .filter(|line| !line.is_empty())
            .map(|line| Zeroizing::new(line.to_vec()))
            .collect();
        let remedy = "write one with `openssl rand -base64 48`";
        if secrets.is_empty() {
            return Err(TlsFileError::new(path, format!("there is no secret in it: {remedy}")));
        }
        if secrets.iter().any(|secret| secret.len() < SECRET_BYTES_MIN) {
            let what = format!("a line has less than {SECRET_BYTES_MIN} characters: {remedy}");
            return Err(TlsFileError::new(path, what));
        }
        if secrets.len() > SECRETS_MAX {
            let what = format!("more than {SECRETS_MAX} lines: remove the last ones, which are the oldest");
            return Err(TlsFileError::new(path, what));
        }
        Ok(Self(secrets))
    }
}

/// Encrypts and decrypts tickets.
pub(super) struct Ticketer {
    /// The keys of the secrets, in the same order. There is at least one.
    keys: Vec<TicketKey>,
}

struct TicketKey {
    name: [u8; KEY_NAME_BYTES],
    key: LessSafeKey,
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticketer")
    }
}

/// The length of a derived value.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl TicketKey {
    fn new(secret: &[u8], policy: &PolicyHash) -> Self {
        let secret = Salt::new(HKDF_SHA256, b"acequia tickets").extract(secret);
        let derive = |label: &[u8], bytes: &mut [u8]| {
            let info = [label, policy];
            let output = secret.expand(&info, Length(bytes.len()));
            output
                .and_then(|output| output.fill(bytes))
                .expect("the length is allowed");
        };
        let (mut name, mut key) = ([0; KEY_NAME_BYTES], Zeroizing::new([0; 32]));
        derive(b"name", &mut name);
        derive(b"key", &mut *key);
        let key = UnboundKey::new(&AES_256_GCM, &*key).expect("the length is that of the algorithm");
        Self {
            name,
            key: LessSafeKey::new(key),
        }
    }

    fn encrypt(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = [&now.to_be_bytes()[..], plain].concat();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce_used, Aad::from(self.name), &mut sealed)
            .ok()?;
        Some([&self.name[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, nonce: &[u8; NONCE_LEN], sealed: &[u8], now: u64) -> Option<Vec<u8>> {
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(nonce, Aad::from(self.name), &mut opened).ok()?;
        let (issued, plain) = opened.split_first_chunk::<TIME_BYTES>()?;
        // 0 if the clock of the machine that issued it is ahead.
        let age = now.saturating_sub(u64::from_be_bytes(*issued));
        (age <= u64::from(LIFETIME)).then(|| plain.to_vec())
    }
}

impl Ticketer {
    pub(super) fn new(secrets: &TicketSecrets, policy: &PolicyHash) -> Self {
        let keys = secrets.0.iter().map(|secret| TicketKey::new(secret, policy));
        Self { keys: keys.collect() }
    }

    fn decrypt_at(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<KEY_NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        key.decrypt(nonce, sealed, now)
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys[0].encrypt(plain, unix_now().cast_unsigned())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_at(cipher, unix_now().cast_unsigned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticketer(secrets: &[&str], policy: u8) -> Ticketer {
        let secrets = secrets.iter().map(|secret| Zeroizing::new(secret.as_bytes().to_vec()));
        Ticketer::new(&TicketSecrets(secrets.collect()), &[policy; 32])
    }

    #[test]
    fn a_ticket_is_valid_wherever_its_secret_is_configured() {
        let issued = ticketer(&["first"], 1).encrypt(b"state").unwrap();
        assert_eq!(ticketer(&["first"], 1).decrypt(&issued).as_deref(), Some(&b"state"[..]));
        assert_eq!(
            ticketer(&["next", "first"], 1).decrypt(&issued).as_deref(),
            Some(&b"state"[..])
        );
        assert_eq!(ticketer(&["next"], 1).decrypt(&issued), None);
    }

    #[test]
    fn a_ticket_is_invalid_under_another_policy() {
        let issued = ticketer(&["first"], 1).encrypt(b"state").unwrap();
        assert_eq!(ticketer(&["first"], 2).decrypt(&issued), None);
    }

    #[test]
    fn a_ticket_is_valid_for_twelve_hours() {
        let ticketer = ticketer(&["first"], 1);
        let issued = ticketer.keys[0].encrypt(b"state", 1_000).unwrap();
        let last = 1_000 + u64::from(LIFETIME);
        assert!(ticketer.decrypt_at(&issued, last).is_some());
        assert!(ticketer.decrypt_at(&issued, last + 1).is_none());
    }

    #[test]
    fn a_tampered_ticket_is_refused() {
        let ticketer = ticketer(&["first"], 1);
        let issued = ticketer.encrypt(b"state").unwrap();
        for at in 0..issued.len() {
            let mut changed = issued.clone();
            changed[at] ^= 1;
            assert_eq!(ticketer.decrypt(&changed), None, "byte {at}");
            assert_eq!(ticketer.decrypt(&issued[..at]), None, "cut at {at}");
        }
    }
}
