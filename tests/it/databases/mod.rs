//! Real databases behind pools that know them.

mod endings;
mod refused;
mod primary;
mod redis;
mod mariadb;
mod refusals;
mod postgres_names;
mod postgres_cancels;
