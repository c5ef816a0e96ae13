//! How a store knows who asks, and what to say where it does not.

/// How a store knows who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// By AWS's credentials.
    Aws,
    /// By Google's credentials.
    Google,
    /// By Azure's credentials.
    Azure,
    /// By the query of each address.
    Signed,
    /// A web server, which lets anybody read or asks for a password.
    Web,
    /// It does not ask: files, memory.
    Local,
}

impl Access {
    /// What to call the store in an error.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Aws => "S3",
            Self::Google => "GCS",
            Self::Azure => "Azure",
            Self::Signed | Self::Web => "HTTP",
            Self::Local => "local",
        }
    }

    /// The variables that hold the credentials; `aws` are those of AWS for the matter at hand.
    pub(super) fn variables(self, aws: &'static str) -> &'static str {
        match self {
            Self::Aws => aws,
            Self::Google => "GOOGLE_APPLICATION_CREDENTIALS",
            Self::Azure => "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_CLIENT_ID and the like",
            Self::Signed | Self::Web | Self::Local => "user and password in the address",
        }
    }

    /// What helps where no credentials were found and the machine's own service was asked in vain.
    pub(super) fn no_credentials(self) -> &'static str {
        match self {
            Self::Google => {
                "no credentials were found, and this machine has no metadata service: set GOOGLE_APPLICATION_CREDENTIALS"
            }
            Self::Azure => {
                "no credentials were found, and this machine has no metadata service: set AZURE_STORAGE_ACCOUNT_NAME and \
                 AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN"
            }
            _ => {
                "no credentials were found, and this machine has no metadata service: set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
            }
        }
    }
}
