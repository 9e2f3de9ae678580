//! Password hashes: the one that we make, and those that come with a file made by `mosquitto_passwd`.
//!
//! What a hash costs is bounded when it is read, so that one line cannot make every login take a minute
//! or a gigabyte.

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use pbkdf2::pbkdf2_hmac;
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;

const ARGON2_MEMORY_KIB_MAX: u32 = 1 << 20;
const ARGON2_PASSES_MAX: u32 = 100;
const PBKDF2_ITERATIONS_MAX: u32 = 10_000_000;
const SALT_BYTES_MIN: usize = 8;
const SHA512_BYTES: usize = 64;

/// Mosquitto pads its base64, the PHC form does not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What is kept of a password. Has no `Debug`, so that it cannot end in a log.
#[derive(PartialEq, Eq)]
pub(super) struct PasswordHash {
    scheme: Scheme,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// `$argon2id$v=19$m=..,t=..,p=..$salt$hash`
    Argon2id { memory_kib: u32, passes: u32, lanes: u32 },
    /// `$7$iterations$salt$hash`: PBKDF2 with HMAC-SHA-512.
    Pbkdf2 { iterations: u32 },
    /// `$6$salt$hash`: one SHA-512 over password and salt.
    Sha512,
}

impl PasswordHash {
    /// Reads a hash; the error says what is wrong without repeating any of it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let fields: Vec<&str> = text.split('$').collect();
        let (scheme, salt, hash) = match *fields.as_slice() {
            ["", "argon2id", "v=19", params, salt, hash] => (Scheme::argon2id(params)?, salt, hash),
            ["", "7", iterations, salt, hash] => (Scheme::pbkdf2(iterations)?, salt, hash),
            ["", "6", salt, hash] => (Scheme::Sha512, salt, hash),
            _ => return Err(NOT_A_HASH),
        };
        let salt = BASE64.decode(salt).map_err(|_| "the salt of the password hash is not base64")?;
        let hash = BASE64.decode(hash).map_err(|_| "the password hash is not base64")?;
        if salt.len() < SALT_BYTES_MIN {
            return Err("the salt of the password hash is shorter than 8 bytes");
        }
        if !scheme.hash_lengths().contains(&hash.len()) {
            return Err("the password hash has the wrong length: was the line cut?");
        }
        Ok(Self { scheme, salt: salt.into(), hash: hash.into() })
    }

    /// Makes the text of a new hash with a random salt: argon2id with 19 MiB and two passes, about 20 ms.
    /// `None` when the operating system gave no random bytes or no memory.
    pub(super) fn make(password: &[u8]) -> Option<String> {
        Some(Argon2::default().hash_password(password).ok()?.to_string())
    }

    /// A hash that no password has, which costs as much to check as `self` does.
    pub(super) fn decoy(&self) -> Self {
        let hash = vec![0; self.hash.len()].into();
        Self { scheme: self.scheme, salt: self.salt.clone(), hash }
    }

    /// Whether this is the password. Blocks for as long as the hash costs; compares in constant time.
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        let mut computed = vec![0; self.hash.len()];
        let done = match self.scheme {
            Scheme::Argon2id { memory_kib, passes, lanes } => {
                Params::new(memory_kib, passes, lanes, Some(computed.len()))
                    .map(|params| Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
                    .and_then(|argon2| argon2.hash_password_into(password, &self.salt, &mut computed))
                    .is_ok()
            }
            Scheme::Pbkdf2 { iterations } => {
                pbkdf2_hmac::<Sha512>(password, &self.salt, iterations, &mut computed);
                true
            }
            Scheme::Sha512 => {
                let digest = Sha512::new().chain_update(password).chain_update(&self.salt).finalize();
                computed.copy_from_slice(&digest);
                true
            }
        };
        done & bool::from(computed.ct_eq(&self.hash))
    }

    /// What a check costs, roughly in half microseconds; only to find the dearest of a file.
    pub(super) fn cost(&self) -> u64 {
        match self.scheme {
            Scheme::Argon2id { memory_kib, passes, .. } => u64::from(memory_kib) * u64::from(passes),
            Scheme::Pbkdf2 { iterations } => iterations.into(),
            Scheme::Sha512 => 1,
        }
    }
}

impl Default for PasswordHash {
    /// A decoy that costs as much as the hashes that [`PasswordHash::make`] makes.
    fn default() -> Self {
        let scheme = Scheme::Argon2id {
            memory_kib: Params::DEFAULT_M_COST,
            passes: Params::DEFAULT_T_COST,
            lanes: Params::DEFAULT_P_COST,
        };
        Self { scheme, salt: [0; 16].into(), hash: [0; Params::DEFAULT_OUTPUT_LEN].into() }
    }
}

const NOT_A_HASH: &str = "not a password hash: expected `user:$argon2id$...`, `user:$scram-sha-256$...`, \
     `user:$7$...` or `user:$6$...`; `causeway passwd FILE USER` writes such a line";

impl Scheme {
    fn argon2id(params: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "the parameters of the argon2id hash must be `m=KIB,t=PASSES,p=LANES`";
        let mut values = params.split(',').zip(["m=", "t=", "p="]).map(|(field, name)| {
            field.strip_prefix(name).and_then(|number| number.parse::<u32>().ok()).ok_or(WRONG)
        });
        let mut next = || values.next().unwrap_or(Err(WRONG));
        let (memory_kib, passes, lanes) = (next()?, next()?, next()?);
        if params.split(',').count() != 3 || Params::new(memory_kib, passes, lanes, None).is_err() {
            return Err(WRONG);
        }
        if memory_kib > ARGON2_MEMORY_KIB_MAX || passes > ARGON2_PASSES_MAX {
            return Err("the argon2id hash costs too much: at most 1 GiB (m=1048576) and t=100");
        }
        Ok(Self::Argon2id { memory_kib, passes, lanes })
    }

    fn pbkdf2(iterations: &str) -> Result<Self, &'static str> {
        match iterations.parse() {
            Ok(iterations @ 1..=PBKDF2_ITERATIONS_MAX) => Ok(Self::Pbkdf2 { iterations }),
            _ => Err("the iterations of a `$7$` hash must be a number from 1 to 10000000"),
        }
    }

    fn hash_lengths(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Argon2id { .. } => 16..=SHA512_BYTES,
            Self::Pbkdf2 { .. } | Self::Sha512 => SHA512_BYTES..=SHA512_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &[u8] = b"tide and harbour";

    // Python: salt = bytes(range(12));
    // "$6$%s$%s" % (b64(salt), b64(hashlib.sha512(password + salt).digest()))
    const SHA512: &str = "$6$AAECAwQFBgcICQoL$UVESpOtJwvHS8+UwVD+/3VLCuQj8a98S/jorI3aOJiZkSylcjpyrQ0sQD+5dKpk7w3+QkxsCk8xg0/f+N/yvaQ==";

    // "$7$1000$%s$%s" % (b64(salt), b64(hashlib.pbkdf2_hmac("sha512", password, salt, 1000)))
    const PBKDF2: &str = "$7$1000$AAECAwQFBgcICQoL$JjKBbnHH93+2rrkzTmJ3wIXVEk6OzFra1FnlJU6uOfWU6FjrXLCsxiDlTTnm57zXdc1G9ZZ2iYfUHmZ+lJf7oQ==";

    // The same with salt = bytes(range(64)) and 101 iterations, the defaults of other versions of
    // mosquitto_passwd.
    const PBKDF2_LONG_SALT: &str = "$7$101$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==$I1pRO/Ijl8o8py2lRloTRiVDZPPAiuBUX5cBx9X8kmMbcdp8h7tzuNrLhgsaRPNgHGWvDFZOGhKcNL3f2Wo94g==";

    // cryptography.hazmat.primitives.kdf.argon2.Argon2id(salt=bytes(range(64)), length=64, iterations=1,
    // lanes=1, memory_cost=47104): the salt, length and cost of mosquitto_passwd 2.1. Its salt is longer
    // than PHC libraries take.
    const ARGON2ID: &str = "$argon2id$v=19$m=47104,t=1,p=1$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw$2/QjfKF17TY4Z55K4FTMHMwQ4A2hdO87f10s0y0IBz3ZI6Kb2L6VBSWBJC+ntUeHYCdJdttMtrPmH66DCOORiw";

    #[test]
    fn verifies_what_mosquitto_passwd_writes() {
        for text in [SHA512, PBKDF2, PBKDF2_LONG_SALT, ARGON2ID] {
            let Ok(hash) = PasswordHash::parse(text) else { panic!("{text}") };
            assert!(hash.verify(PASSWORD), "{text}");
            assert!(!hash.verify(b"tide and harbor"), "{text}");
            assert!(!hash.verify(b""), "{text}");
        }
    }

    #[test]
    fn verifies_what_it_makes_and_salts_each_time() {
        let text = PasswordHash::make(PASSWORD).unwrap();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        assert!(PasswordHash::parse(&text).is_ok_and(|hash| hash.verify(PASSWORD)));
        assert_ne!(PasswordHash::make(PASSWORD).unwrap(), text);
    }

    #[test]
    fn a_decoy_costs_the_same_and_has_no_password() {
        let Ok(hash) = PasswordHash::parse(PBKDF2) else { panic!() };
        assert_eq!(hash.decoy().cost(), hash.cost());
        assert!(!hash.decoy().verify(PASSWORD));
    }

    #[test]
    fn refuses_everything_else() {
        let cut = ARGON2ID.get(..ARGON2ID.len() - 70).unwrap();
        let too_dear = ARGON2ID.replace("m=47104", "m=4294967295");
        let extra = ARGON2ID.replace("p=1", "p=1,x=1");
        let zero = PBKDF2.replace("$1000$", "$0$");
        for text in [
            "",
            "secret",
            "$",
            "$6$",
            "$6$$",
            "$7$1000$$",
            "$5$abc$def",
            "$2b$12$abc",
            "$argon2id$",
            cut,
            &too_dear,
            &extra,
            &zero,
            &SHA512.replace("AAECAwQFBgcICQoL", "AAEC"),
            &SHA512.replace("yvaQ==", ""),
            &SHA512.replace("UVES", "U*ES"),
            &ARGON2ID.replace("v=19", "v=16"),
            &ARGON2ID.replace("m=47104,t=1,p=1", "m=0,t=0,p=0"),
        ] {
            assert!(PasswordHash::parse(text).is_err(), "{text}");
        }
    }
}
