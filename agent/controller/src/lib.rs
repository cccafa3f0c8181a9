//! The thin controller: desired pods from a directory, and their difference to what is known.
