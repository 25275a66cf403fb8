//! What the environment says. Read once; a mistake ends the program with a sentence that names the variable.
//! The values of the database addresses hold passwords and must never be printed.

use tokio_postgres::Config;

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Takes reads and writes.
    pub(crate) primary: Config,
    /// Takes reads; without it the primary takes them too.
    pub(crate) replica: Option<Config>,
    /// The application server that started us, such as `app-2`.
    pub(crate) server: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("{0} is not set; set it to {1}")]
    Missing(&'static str, &'static str),
    #[error("PORT is \"{0}\", which is no port number; set it to a number from 1 to 65535")]
    Port(String),
    #[error("{0} is no PostgreSQL address ({1}); write postgres://user:password@host:port/database")]
    Address(&'static str, tokio_postgres::Error),
}

impl Settings {
    pub(crate) fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let set = |name| get(name).filter(|value| !value.is_empty());
        let database = set("DATABASE_URL")
            .ok_or(SettingsError::Missing("DATABASE_URL", "the address of a PostgreSQL database"))?;
        let replica = set("DATABASE_REPLICA_URL").filter(|replica| *replica != database);
        Ok(Self {
            host: set("HOST").unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: port(set("PORT").ok_or(SettingsError::Missing("PORT", "the port to listen on"))?)?,
            primary: address("DATABASE_URL", &database)?,
            replica: replica.map(|url| address("DATABASE_REPLICA_URL", &url)).transpose()?,
            server: set("DOLMEN_SERVER"),
        })
    }
}

fn port(written: String) -> Result<u16, SettingsError> {
    written.parse().map_err(|_| SettingsError::Port(written))
}

fn address(name: &'static str, url: &str) -> Result<Config, SettingsError> {
    url.parse().map_err(|error| SettingsError::Address(name, error))
}
