//! What a table of keys is: one line for each key, out of which comes all else that knows the key.
//!
//! The macro `tables!` turns each line into a field of a public struct, its default, and a [`Key`] that reads and
//! writes it. The comment of a line is not for readers of the code alone: it is what operators read in the reference
//! file, on the manual page and in docs/configuration.md, which are generated (packaging/generate). There, a blank
//! line ends a paragraph, and what stands in backquotes is set like code.

use toml::de::DeValue;

use super::keys::Config;
use super::problem::Fault;

/// One table of the configuration file, such as `[session]`.
#[derive(Debug)]
pub struct Table {
    /// Its name, such as `session`.
    pub name: &'static str,
    /// What its keys are about, and then the rules that span several of them, as it stands in the code.
    pub doc: &'static str,
}

/// One key of the configuration file.
#[derive(Debug)]
pub struct Key {
    /// The table it stands in, such as `session`.
    pub table: &'static str,
    /// Its name within the table, such as `grace`.
    pub name: &'static str,
    /// What it means, as it stands in the code.
    pub doc: &'static str,
    /// A value as TOML, for a key that has no default.
    pub example: Option<&'static str>,
    pub(super) read: fn(&mut Config, &DeValue<'_>) -> Result<(), Vec<Fault>>,
    pub(super) write: fn(&Config) -> Option<String>,
    pub(super) allowed: fn() -> String,
}

impl Key {
    /// The dotted name, such as `session.grace`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }

    /// The default as TOML; nothing for a key that has no value unless it is written.
    #[must_use]
    pub fn default(&self) -> Option<String> {
        (self.write)(&Config::default())
    }

    /// What may be written, in words.
    #[must_use]
    pub fn allowed(&self) -> String {
        (self.allowed)()
    }
}

macro_rules! tables {
    ($(
        $( #[doc = $table_doc:literal] )+
        $table:ident: $Table:ident {
            $(
                $( #[doc = $doc:literal] )+
                $name:ident: $ty:ty = $default:expr, $kind:expr $( , example $example:literal )?;
            )*
        }
    )*) => {
        /// A validated configuration: one group for each table of the file.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Config {
            $( $( #[doc = $table_doc] )+ pub $table: $Table, )*
        }

        $(
            $( #[doc = $table_doc] )+
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $Table {
                $( $( #[doc = $doc] )+ pub $name: $ty, )*
            }

            impl Default for $Table {
                fn default() -> Self {
                    Self { $( $name: $default, )* }
                }
            }
        )*

        static TABLES: &[Table] = &[ $( Table {
            name: stringify!($table),
            doc: concat!($( $table_doc, "\n" ),+),
        }, )* ];

        static KEYS: &[Key] = &[ $( $( Key {
            table: stringify!($table),
            name: stringify!($name),
            doc: concat!($( $doc, "\n" ),+),
            example: [$( Some($example), )? None][0],
            read: |config, value| {
                config.$table.$name = Kind::read(&$kind, value)?;
                Ok(())
            },
            write: |config| Kind::write(&$kind, &config.$table.$name),
            allowed: || Kind::allowed(&$kind),
        }, )* )* ];
    };
}

pub(super) use tables;
