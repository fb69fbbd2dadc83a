//! file-package
