//! A password: where it comes from, and a type that never shows it.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::values;

/// Environment variable of Kafka's password.
pub const PASSWORD_ENV: &str = "KAFKA_SASL_PASSWORD";

/// Bytes that must not be printed: `Debug` shows `***`, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps the bytes unchanged.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for authentication only.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// Reads the secret from the file that `setting` names, without a line ending at its end.
    ///
    /// # Errors
    /// The file cannot be read, is not a regular file, or is empty. The text is one sentence that names it.
    pub fn from_file(setting: &str, path: &Path) -> Result<Self, String> {
        let name = path.display();
        // The file is read for each connection. A pipe would return its content only once, and could block.
        values::file(setting, path)?;
        let bytes = fs::read(path).map_err(|error| format!("{setting}={name}: {error}"))?;
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Err(format!("{setting}={name} is empty; write the password into it"));
        }
        Ok(Self::new(line))
    }

    /// Checks that it can be sent as a password; `name` is the setting that it comes from.
    ///
    /// # Errors
    /// One sentence that names the setting.
    fn check(&self, name: &str) -> Result<(), String> {
        if self.0.is_empty() || self.0.contains(&0) {
            return Err(format!("{name}: a password must not be empty or contain a zero byte"));
        }
        if self.0.ends_with(b"\n") {
            return Err(format!(
                "{name} ends with a line break, which would be part of the password; remove it"
            ));
        }
        Ok(())
    }

    /// Checks a password that is in the environment or in a file, each with the name of its setting. Returns whether it
    /// is in one of them.
    ///
    /// # Errors
    /// It is in both, or it cannot be sent as a password. The text is one sentence.
    pub fn check_given(
        (name, given): (&str, Option<&Self>),
        (file_name, file): (&str, Option<&Path>),
    ) -> Result<bool, String> {
        match (given, file) {
            (Some(_), Some(_)) => Err(format!("{name} and {file_name} are both set; unset one of them")),
            (Some(password), None) => password.check(name).map(|()| true),
            (None, Some(file)) => Self::from_file(file_name, file)?.check(file_name).map(|()| true),
            (None, None) => Ok(false),
        }
    }

    /// The value of the environment variable `name`.
    pub fn from_environment(name: &str) -> Option<Self> {
        std::env::var_os(name).map(OsString::into_vec).map(Self)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_itself_to_nobody_and_loses_the_end_of_its_line() {
        assert_eq!(format!("{:?}", Some(Secret::new("hush"))), "Some(***)");
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("password");
        for (text, secret) in [("p w", "p w"), ("p\n", "p"), ("p\r\n", "p"), ("p\n\n", "p\n"), (" p ", " p ")]
        {
            fs::write(&file, text).expect("written");
            assert_eq!(Secret::from_file("F", &file), Ok(Secret::new(secret)), "{text:?}");
        }
        for (text, word) in [("", "empty"), ("\n", "empty"), ("\r\n", "empty")] {
            fs::write(&file, text).expect("written");
            assert!(Secret::from_file("F", &file).is_err_and(|reason| reason.contains(word)), "{text:?}");
        }
        assert!(Secret::from_file("F", dir.path()).is_err_and(|reason| reason.contains("directory")));
    }
}
