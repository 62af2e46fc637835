//! One test body, every etcd version.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::peers::{EtcdVersion, skipped};

/// Makes one test per etcd version out of each function: `fn restores(etcd: EtcdVersion) { ... }` becomes `restores::etcd_3_4` and so on.
/// The function may be `async`; it then runs on a multi-threaded runtime of its own.
///
/// A version whose server is not there is reported as `SKIPPED:`, one on which the body came to its end as `MATRIX:`.
/// Attributes (and doc comments) before the function are kept.
#[macro_export]
macro_rules! etcd_matrix {
    () => {};
    ($(#[$attribute:meta])* async fn $name:ident($etcd:ident: EtcdVersion) $body:block $($rest:tt)*) => {
        $crate::etcd_matrix! {
            @tests $(#[$attribute])* $name $etcd { $crate::matrix::block_on(async move $body) }
        }
        $crate::etcd_matrix! { $($rest)* }
    };
    ($(#[$attribute:meta])* fn $name:ident($etcd:ident: EtcdVersion) $body:block $($rest:tt)*) => {
        $crate::etcd_matrix! { @tests $(#[$attribute])* $name $etcd $body }
        $crate::etcd_matrix! { $($rest)* }
    };
    (@tests $(#[$attribute:meta])* $name:ident $etcd:ident $body:block) => {
        $(#[$attribute])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn body($etcd: $crate::EtcdVersion) $body

            #[test]
            fn etcd_3_4() { $crate::matrix::run(stringify!($name), $crate::EtcdVersion::V3_4, body); }
            #[test]
            fn etcd_3_5() { $crate::matrix::run(stringify!($name), $crate::EtcdVersion::V3_5, body); }
            #[test]
            fn etcd_3_6() { $crate::matrix::run(stringify!($name), $crate::EtcdVersion::V3_6, body); }
            #[test]
            fn etcd_3_7() { $crate::matrix::run(stringify!($name), $crate::EtcdVersion::V3_7, body); }
        }
    };
}

/// Runs a body on one version, or reports that it is not there. What [`etcd_matrix!`] expands to.
pub fn run(name: &str, version: EtcdVersion, body: impl FnOnce(EtcdVersion)) {
    if version.available() {
        body(version);
        println!("MATRIX: {version} {name} ok");
    } else {
        skipped(format_args!("{name} on etcd {version}: not available"));
    }
}

/// Runs a body on each of some versions, one after the other, and fails at the end if any failed; for tests whose versions are not the whole matrix.
pub fn each(name: &str, versions: &[EtcdVersion], mut body: impl FnMut(EtcdVersion)) {
    let mut failure = None;
    for &version in versions {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(name, version, &mut body)));
        if let Err(panic) = outcome {
            println!("{name}: failed on etcd {version}");
            failure.get_or_insert(panic);
        }
    }
    if let Some(panic) = failure {
        resume_unwind(panic);
    }
}

/// Runs a future to its end on a multi-threaded runtime of its own, so that blocking calls of this library do not stop the future's tasks.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}
