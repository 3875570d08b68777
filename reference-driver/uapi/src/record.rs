//! How a record is declared: one macro gives the `#[repr(C)]` struct, its safe decoding from and
//! encoding to bytes, and the table of its fields that the C header, the documentation and the
//! `abi` suite are made from. Owns no record; those stand in [`crate::drm`] and [`crate::fencepost`].

/// What a field is for, and so what a correct driver checks about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Must be zero: reserved, padding, or an extension pointer not yet defined. Else `EINVAL`.
    Zero,
    /// Read by the driver; any value, or checked as the text of the field says.
    In,
    /// Written by the driver; the value passed in is ignored.
    Out,
    /// Read and written by the driver.
    InOut,
    /// A set of bits; a bit outside the mask is `EINVAL`.
    Flags(u64),
    /// A number below the bound; from the bound on `EINVAL`.
    Below(u64),
    /// An object named by a handle or id of this open file; an unknown one is `ENOENT`.
    Handle(Object),
    /// A user-space address; an unreadable or unwritable one is `EFAULT`.
    Pointer,
    /// Number of array elements; above the bound is `EINVAL`.
    Count(u64),
    /// Size of one array element in bytes, a multiple of 8, at least the element's first
    /// published size and at most 256: else `EINVAL`.
    Stride,
    /// A GPU address, size or offset in bytes that must be a multiple of 4 KiB, else `EINVAL`.
    Page,
}

/// The kinds of object that a [`Role::Handle`] can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A GEM buffer object.
    Gem,
    /// A GPU address space.
    Vm,
    /// A submission or bind queue.
    Queue,
    /// A DRM syncobj.
    Syncobj,
    /// A file descriptor.
    Fd,
}

/// One field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name in the Rust struct and in the C header.
    pub name: &'static str,
    /// Offset in bytes.
    pub offset: usize,
    /// Size in bytes (of the whole array for an array).
    pub size: usize,
    /// C type of one element.
    pub c_type: &'static str,
    /// Number of elements; 0 for a scalar.
    pub elements: usize,
    /// What the field is for.
    pub role: Role,
    /// The field's documentation.
    pub doc: &'static str,
}

/// A record of the uAPI: fixed layout, no padding, safe to decode from any bytes.
pub trait Record: Sized + Copy + Default {
    /// Name in the C header.
    const NAME: &'static str;
    /// Size in bytes.
    const SIZE: usize;
    /// The record's documentation.
    const DOC: &'static str;
    /// The fields in order.
    const FIELDS: &'static [Field];

    /// Decodes a record; bytes missing at the end read as zero (an older caller), bytes beyond
    /// the record are ignored (a newer caller), as in the DRM core's `drm_ioctl`.
    #[must_use]
    fn decode(bytes: &[u8]) -> Self;

    /// Encodes the record into `out`, as much of it as fits.
    fn encode(&self, out: &mut [u8]);
}

/// A field type: a plain number or array of numbers in native byte order.
pub trait Plain: Copy {
    /// Size in bytes.
    const SIZE: usize;
    /// C name of one element.
    const C_TYPE: &'static str;
    /// Number of elements; 0 for a scalar.
    const ELEMENTS: usize;
    /// The value with all bytes zero.
    const ZERO: Self;
    /// Reads the value; missing bytes are zero.
    fn get(bytes: &[u8]) -> Self;
    /// Writes as many bytes of the value as fit.
    fn put(self, out: &mut [u8]);
}

macro_rules! plain {
    ($($t:ty, $c:literal;)*) => {$(
        impl Plain for $t {
            const SIZE: usize = core::mem::size_of::<$t>();
            const C_TYPE: &'static str = $c;
            const ELEMENTS: usize = 0;
            const ZERO: Self = 0;
            fn get(bytes: &[u8]) -> Self {
                let mut raw = [0; core::mem::size_of::<$t>()];
                let n = bytes.len().min(raw.len());
                raw[..n].copy_from_slice(&bytes[..n]);
                <$t>::from_ne_bytes(raw)
            }
            fn put(self, out: &mut [u8]) {
                let raw = self.to_ne_bytes();
                let n = out.len().min(raw.len());
                out[..n].copy_from_slice(&raw[..n]);
            }
        }
    )*};
}
plain! { u8, "__u8"; u32, "__u32"; u64, "__u64"; i32, "__s32"; i64, "__s64"; }

impl<T: Plain, const N: usize> Plain for [T; N] {
    const SIZE: usize = T::SIZE * N;
    const C_TYPE: &'static str = T::C_TYPE;
    const ELEMENTS: usize = N;
    const ZERO: Self = [T::ZERO; N];
    fn get(bytes: &[u8]) -> Self {
        let mut all = Self::ZERO;
        for (i, one) in all.iter_mut().enumerate() {
            *one = T::get(bytes.get(i * T::SIZE..).unwrap_or(&[]));
        }
        all
    }
    fn put(self, out: &mut [u8]) {
        for (i, one) in self.into_iter().enumerate() {
            one.put(out.get_mut(i * T::SIZE..).unwrap_or(&mut []));
        }
    }
}

/// Declares a record: `pub struct Name("c_name"), SIZE { field: type = Role::X, ... }`.
/// Size and absence of padding are asserted at compile time.
macro_rules! record {
    ($(#[doc = $doc:literal])+ pub struct $name:ident($c:literal), $size:literal {
        $($(#[doc = $fdoc:literal])+ $field:ident: $t:ty = $role:expr,)+
    }) => {
        $(#[doc = $doc])+
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[doc = $fdoc])+ pub $field: $t,)+ }

        const _: () = {
            assert!(core::mem::size_of::<$name>() == $size, "size is part of the uAPI");
            assert!(0 $(+ <$t as $crate::record::Plain>::SIZE)+ == $size, "no implicit padding");
            assert!($size % 8 == 0, "records are multiples of 8 bytes on every ABI");
        };

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: <$t as $crate::record::Plain>::ZERO,)+ }
            }
        }

        impl $crate::record::Record for $name {
            const NAME: &'static str = $c;
            const SIZE: usize = $size;
            const DOC: &'static str = concat!($($doc, "\n"),+);
            const FIELDS: &'static [$crate::record::Field] = &[$($crate::record::Field {
                name: stringify!($field),
                offset: core::mem::offset_of!($name, $field),
                size: <$t as $crate::record::Plain>::SIZE,
                c_type: <$t as $crate::record::Plain>::C_TYPE,
                elements: <$t as $crate::record::Plain>::ELEMENTS,
                role: $role,
                doc: concat!($($fdoc, "\n"),+),
            },)+];
            fn decode(bytes: &[u8]) -> Self {
                Self { $($field: $crate::record::Plain::get(
                    bytes.get(core::mem::offset_of!($name, $field)..).unwrap_or(&[])),)+ }
            }
            fn encode(&self, out: &mut [u8]) {
                $($crate::record::Plain::put(self.$field,
                    out.get_mut(core::mem::offset_of!($name, $field)..).unwrap_or(&mut []));)+
            }
        }
    };
}
pub(crate) use record;
