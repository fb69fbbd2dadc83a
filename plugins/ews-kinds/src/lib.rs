//! ews-kinds
