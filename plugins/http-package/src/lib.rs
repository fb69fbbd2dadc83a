//! http-package
