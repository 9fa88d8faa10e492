//! Settings of the lake: where closed logs go as Parquet files, and which fields of an event become columns.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{ArgAction, Args};

use super::S3Config;
use super::values::{directory_to_write, file};

/// Most columns that are made of fields.
const COLUMNS_MAX: usize = 100;

/// Names that are not free: the columns that each file has, and those that DuckDB and others make of the directories.
const TAKEN: [&str; 4] = ["logged_at", "event", "dt", "hour"];

/// The lake.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Lake")]
pub struct LakeConfig {
    /// Directory in which each closed log becomes Parquet files, `dt=2026-11-26/hour=17/….parquet`; the log is removed
    /// once they are complete. It may be on another file system, and consumers with different log names may share it.
    /// Requires a build with --features lake
    #[arg(long = "lake-dir", env = "LAKE_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Top-level fields of events that become columns, separated by commas: `NAME:TYPE` with the type string, int64,
    /// double, bool or timestamp. A value of another type is null in its column; the column `event` has the whole event
    #[arg(long = "lake-columns", env = "LAKE_COLUMNS", value_name = "NAME:TYPE,…", value_parser = columns)]
    // Written out, the type is one value to clap, so that its parser sees the whole list.
    columns: Option<std::vec::Vec<Column>>,

    /// Keep closed logs that are in the lake; LOG_ROTATE_KEEP and LOG_ROTATE_GZIP apply to them
    #[arg(long = "lake-keep-logs", env = "LAKE_KEEP_LOGS", default_value_t = false,
          action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub keep_logs: bool,

    /// Where its files go.
    #[command(flatten)]
    pub s3: S3Config,
}

/// A top-level field of the events that becomes a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name of the field.
    pub field: String,
    /// Which values it takes.
    pub kind: ColumnKind,
}

impl Column {
    /// Name of the column: that of the field, with `_` after it where the lake has a column of that name.
    pub fn name(&self) -> String {
        let is_taken = TAKEN.iter().any(|taken| taken.eq_ignore_ascii_case(&self.field));
        format!("{}{}", self.field, if is_taken { "_" } else { "" })
    }
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// A JSON string.
    Text,
    /// A JSON number without fraction and exponent.
    Int64,
    /// Any JSON number.
    Double,
    /// `true` or `false`.
    Bool,
    /// A JSON string with a time of RFC 3339.
    Timestamp,
}

const KINDS: [(&str, ColumnKind); 5] = [
    ("string", ColumnKind::Text),
    ("int64", ColumnKind::Int64),
    ("double", ColumnKind::Double),
    ("bool", ColumnKind::Bool),
    ("timestamp", ColumnKind::Timestamp),
];

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = KINDS.iter().find(|(_, kind)| *kind == self.kind).map_or("", |(name, _)| name);
        write!(f, "{}:{kind}", self.field)
    }
}

impl FromStr for Column {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, kind) =
            text.rsplit_once(':').map_or((text, ""), |(field, kind)| (field.trim(), kind.trim()));
        if field.is_empty() {
            return Err(format!("`{text}` has no field; write NAME:TYPE, for example user_id:int64"));
        }
        let kind = KINDS.iter().find(|(name, _)| *name == kind).map(|(_, kind)| *kind).ok_or_else(|| {
            format!("`{text}`: the type must be string, int64, double, bool or timestamp, for example {field}:string")
        })?;
        Ok(Self { field: field.to_owned(), kind })
    }
}

fn columns(list: &str) -> Result<Vec<Column>, String> {
    let mut found: Vec<Column> = Vec::new();
    for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let column: Column = text.parse()?;
        // DuckDB and others do not tell upper from lower case in names of columns.
        if let Some(other) = found.iter().find(|other| other.name().eq_ignore_ascii_case(&column.name())) {
            return Err(format!("`{other}` and `{column}` would be one column; remove one of them"));
        }
        found.push(column);
    }
    match found.len() {
        0..=COLUMNS_MAX => Ok(found),
        count => Err(format!("{count} columns, but at most {COLUMNS_MAX} are allowed")),
    }
}

impl LakeConfig {
    /// The fields that become columns.
    pub fn columns(&self) -> &[Column] {
        self.columns.as_deref().unwrap_or_default()
    }

    /// The columns as they are written in the setting.
    pub fn columns_in_force(&self) -> String {
        self.columns().iter().map(Column::to_string).collect::<Vec<_>>().join(",")
    }

    /// Checks the directory, that no setting is without effect, and that files named like `log` are read.
    ///
    /// # Errors
    /// One sentence with the setting, its value and what is allowed.
    pub fn validate(&self, log: &Path) -> Result<(), String> {
        self.s3.validate(self.dir.is_some())?;
        let Some(dir) = &self.dir else {
            if self.keep_logs || !self.columns().is_empty() {
                return Err(format!(
                    "LAKE_COLUMNS={} and LAKE_KEEP_LOGS={} have no effect without LAKE_DIR; set it",
                    self.columns_in_force(),
                    self.keep_logs
                ));
            }
            return Ok(());
        };
        if !cfg!(feature = "lake") {
            return Err(format!(
                "LAKE_DIR={}: this program was built without the lake; build it with \
                 `cargo build --release --features lake`",
                dir.display()
            ));
        }
        if log.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['_', '.'])) {
            return Err(format!(
                "LOG_FILE={}: the files in LAKE_DIR={} are named like the log, and programs skip names that begin \
                 with `_` or `.`; choose another name",
                log.display(),
                dir.display()
            ));
        }
        directory_to_write("LAKE_DIR", dir)
    }
}

/// Checks the path given by --verify: that of a log, or the directory of a lake.
///
/// # Errors
/// One sentence with the path and what is allowed.
pub fn log_or_lake(path: &Path) -> Result<(), String> {
    let is_lake = path.is_dir() || path.to_string_lossy().ends_with('/');
    match (is_lake, cfg!(feature = "lake")) {
        (false, _) => file("--verify", path),
        (true, true) if is_other(path) => Err(format!(
            "--verify={}: this directory is not a lake; name a log file, or the directory that LAKE_DIR names",
            path.display()
        )),
        (true, true) => directory_to_write("--verify", path),
        (true, false) => Err(format!(
            "--verify={}: this is a directory; name a log file, or for a lake build with `cargo build --release \
             --features lake`",
            path.display()
        )),
    }
}

/// True for a directory that has files, but not those of a lake. A lake that was not used yet is empty.
fn is_other(path: &Path) -> bool {
    let is_empty = fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
    !is_empty && !path.join("_manifest").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_as_people_write_them() {
        let list = columns(" event:string, user_id:int64,a:b:bool,,").expect("columns");
        let written: Vec<String> = list.iter().map(Column::to_string).collect();
        assert_eq!(written, ["event:string", "user_id:int64", "a:b:bool"]);
        assert_eq!(list.iter().map(Column::name).collect::<Vec<_>>(), ["event_", "user_id", "a:b"]);
        assert_eq!(columns(""), Ok(Vec::new()));
    }

    #[test]
    fn a_bad_column_is_refused_with_what_to_write() {
        for (list, hint) in [
            ("user_id", "for example user_id:string"),
            ("user_id:int", "int64"),
            (":string", "no field"),
            ("a:string,A:bool", "one column"),
            ("hour:string,hour_:string", "one column"),
        ] {
            let reason = columns(list).expect_err(list);
            assert!(reason.contains(hint), "{list}: {reason}");
        }
        let many = (0..101).map(|n| format!("f{n}:bool")).collect::<Vec<_>>().join(",");
        assert!(columns(&many).expect_err("too many").contains("at most 100"));
    }

    #[test]
    fn what_has_no_effect_is_refused_by_name() {
        let reason = LakeConfig { keep_logs: true, ..LakeConfig::default() }
            .validate(Path::new("events.log"))
            .expect_err("refused");
        assert!(reason.contains("LAKE_KEEP_LOGS=true") && reason.contains("LAKE_DIR"), "{reason}");
        assert_eq!(LakeConfig::default().validate(Path::new("events.log")), Ok(()));
    }

    #[test]
    fn a_build_without_it_says_how_to_get_it() {
        let config = LakeConfig { dir: Some("lake".into()), ..LakeConfig::default() };
        let reason = config.validate(Path::new("events.log")).err().unwrap_or_default();
        assert_eq!(
            reason.contains("cargo build --release --features lake"),
            !cfg!(feature = "lake"),
            "{reason}"
        );
    }
}
