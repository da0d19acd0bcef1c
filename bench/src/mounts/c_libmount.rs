//! The C library libmount, when it is installed; loaded when asked for, so that nothing is needed to build.
#![expect(unsafe_code, reason = "a C library loaded by name; every block says why it is sound")]

use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

type Table = *mut c_void;
type Entry = *mut c_void;
type NewTable = unsafe extern "C" fn() -> Table;
type ParseFile = unsafe extern "C" fn(Table, *const c_char) -> c_int;
type FindTarget = unsafe extern "C" fn(Table, *const c_char, c_int) -> Entry;
type Source = unsafe extern "C" fn(Entry) -> *const c_char;
type Count = unsafe extern "C" fn(Table) -> c_int;
type Free = unsafe extern "C" fn(Table);

/// The functions of libmount.so.1 that are used here, by the declarations of its libmount.h.
#[derive(Clone, Copy)]
pub struct LibMount {
    new_table: NewTable,
    parse_file: ParseFile,
    find_target: FindTarget,
    source: Source,
    count: Count,
    free: Free,
}

impl LibMount {
    /// Loads the library; `None` when it is not installed.
    pub fn load() -> Option<Self> {
        // SAFETY: the name is a C string; libmount has no constructors that depend on this program.
        let library = unsafe { libc::dlopen(c"libmount.so.1".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return None;
        }
        let symbol = |name: &CStr| {
            // SAFETY: `library` is a handle that is never closed, `name` is a C string.
            let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
            (!symbol.is_null()).then_some(symbol)
        };
        macro_rules! function {
            ($name:literal as $type:ty) => {{
                let symbol = symbol($name)?;
                // SAFETY: libmount's ABI is stable: the function of this name has this type.
                unsafe { std::mem::transmute::<*mut c_void, $type>(symbol) }
            }};
        }
        Some(Self {
            new_table: function!(c"mnt_new_table" as NewTable),
            parse_file: function!(c"mnt_table_parse_file" as ParseFile),
            find_target: function!(c"mnt_table_find_target" as FindTarget),
            source: function!(c"mnt_fs_get_source" as Source),
            count: function!(c"mnt_table_get_nents" as Count),
            free: function!(c"mnt_unref_table" as Free),
        })
    }

    /// Parses mountinfo and finds the source of each path, from the end of the table backward.
    pub fn sources(&self, paths: &[PathBuf]) -> Result<Vec<Option<OsString>>> {
        const BACKWARD: c_int = 1;
        self.with_table(|table| {
            paths
                .iter()
                .map(|path| {
                    let path = CString::new(path.as_os_str().as_bytes())?;
                    // SAFETY: `table` is alive, `path` is a C string.
                    let entry = unsafe { (self.find_target)(table, path.as_ptr(), BACKWARD) };
                    if entry.is_null() {
                        return Ok(None);
                    }
                    // SAFETY: `entry` is one of the table, which is alive.
                    let source = unsafe { (self.source)(entry) };
                    // SAFETY: a source that is not null is a C string that lives as long as the table.
                    let source = (!source.is_null()).then(|| unsafe { CStr::from_ptr(source) });
                    Ok(Some(OsString::from_vec(source.unwrap_or_default().to_bytes().to_vec())))
                })
                .collect()
        })
    }

    /// Parses mountinfo; the number of mounts.
    pub fn count(&self) -> Result<usize> {
        // SAFETY: `table` is alive.
        self.with_table(|table| Ok(usize::try_from(unsafe { (self.count)(table) })?))
    }

    fn with_table<T>(&self, use_it: impl FnOnce(Table) -> Result<T>) -> Result<T> {
        // SAFETY: takes nothing.
        let table = unsafe { (self.new_table)() };
        ensure!(!table.is_null(), "mnt_new_table failed");
        let file = CString::new(Path::new("/proc/self/mountinfo").as_os_str().as_bytes())?;
        // SAFETY: `table` is alive, `file` is a C string.
        let parsed = unsafe { (self.parse_file)(table, file.as_ptr()) };
        let result = if parsed == 0 { use_it(table) } else { Err(anyhow::anyhow!("error {parsed}")) };
        // SAFETY: the only reference to the table.
        unsafe { (self.free)(table) };
        result.context("libmount")
    }
}
