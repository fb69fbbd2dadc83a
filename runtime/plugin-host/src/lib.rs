//! cutover-plugin-host
