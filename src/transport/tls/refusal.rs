//! Why a handshake was refused, and by whom.

use rustls::{AlertDescription, Error};
use std::fmt;
use std::io;

/// The side that refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// This peer refused the other one.
    This,
    /// The other peer refused this one.
    Peer,
}

/// What was wrong, as far as the TLS alert tells: both sides of a refused handshake see the same reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// certificate_required: a certificate is demanded, and none was shown.
    Missing,
    /// unknown_ca: the certificate does not lead to an authority that is trusted.
    Authority,
    /// certificate_expired: the certificate has expired, or is not valid yet.
    Dates,
    /// bad_certificate: the certificate does not carry the expected name, or is not well formed.
    Name,
    /// certificate_unknown: the certificate does not have the pinned fingerprint.
    Fingerprint,
    /// decrypt_error: a signature does not verify.
    Signature,
    /// no_application_protocol: the client offered application protocols, and Vortex has none.
    ApplicationProtocol,
    /// Another alert, by its number (RFC 8446, section 6).
    Alert(u8),
}

impl From<AlertDescription> for Reason {
    fn from(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::CertificateRequired => Self::Missing,
            AlertDescription::UnknownCA => Self::Authority,
            AlertDescription::CertificateExpired => Self::Dates,
            AlertDescription::BadCertificate => Self::Name,
            AlertDescription::CertificateUnknown => Self::Fingerprint,
            AlertDescription::DecryptError => Self::Signature,
            AlertDescription::NoApplicationProtocol => Self::ApplicationProtocol,
            other => Self::Alert(other.into()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "expected a certificate, none was shown",
            Self::Authority => "expected a certificate that leads to a trusted authority",
            Self::Dates => "expected a certificate that is valid now",
            Self::Name => "expected a well-formed certificate with the expected name",
            Self::Fingerprint => "expected the certificate with the pinned fingerprint",
            Self::Signature => "expected a signature by the key of the certificate",
            Self::ApplicationProtocol => "expected no application protocols",
            Self::Alert(number) => return write!(f, "TLS alert {number}"),
        })
    }
}

/// A refused handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Who refused.
    pub by: By,
    /// Why.
    pub reason: Reason,
    /// What the TLS library adds, for a log; empty where it adds nothing.
    pub detail: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.by {
            By::This => "the handshake was refused here",
            By::Peer => "the peer refused the handshake",
        };
        write!(f, "{who}: {}", self.reason)?;
        match self.detail.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", self.detail),
        }
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// The refusal behind an error of TLS; none where TLS failed for a reason other than an alert.
    pub fn from_tls(error: &Error) -> Option<Self> {
        let (by, alert) = match error {
            Error::AlertReceived(alert) => (By::Peer, *alert),
            Error::InvalidCertificate(problem) => (By::This, problem.clone().into()),
            Error::NoCertificatesPresented => (By::This, AlertDescription::CertificateRequired),
            Error::NoApplicationProtocol => (By::This, AlertDescription::NoApplicationProtocol),
            _ => return None,
        };
        Some(Self { by, reason: alert.into(), detail: error.to_string() })
    }

    /// The refusal behind an error of a protected byte stream.
    pub fn from_io(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref()?;
        match inner.downcast_ref::<Self>() {
            Some(refusal) => Some(refusal.clone()),
            None => inner.downcast_ref::<Error>().and_then(Self::from_tls),
        }
    }

    /// The refusal behind the end of a QUIC connection.
    #[cfg(feature = "quic")]
    pub fn from_quic(error: &quinn::ConnectionError) -> Option<Self> {
        let (by, code, detail) = match error {
            quinn::ConnectionError::TransportError(error) => (By::This, error.code, error.reason.clone()),
            quinn::ConnectionError::ConnectionClosed(close) => (
                By::Peer,
                close.error_code,
                String::from_utf8_lossy(&close.reason).escape_debug().to_string(),
            ),
            _ => return None,
        };
        // RFC 9001, section 4.8: 0x0100 plus the alert.
        let alert = u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())?;
        Some(Self { by, reason: AlertDescription::from(alert).into(), detail })
    }
}
