// Whether a message can be shown on a terminal, decided by tables that the library does not use.
#pragma once

#include <string>

#include <utf8proc.h>

namespace gptq_test {

/// Well-formed UTF-8 on one line, without control characters and without those that turn the direction of writing.
inline bool is_printable(const std::string& text) {
    for (std::size_t at = 0; at < text.size();) {
        utf8proc_int32_t code = 0;
        const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
                                             static_cast<utf8proc_ssize_t>(text.size() - at), &code);
        if (length <= 0) return false;
        const auto& property = *utf8proc_get_property(code);
        const auto turns = [&](utf8proc_bidi_class_t first, utf8proc_bidi_class_t last) {
            return property.bidi_class >= first && property.bidi_class <= last;
        };
        if (property.category == UTF8PROC_CATEGORY_CC || property.category == UTF8PROC_CATEGORY_ZL ||
            property.category == UTF8PROC_CATEGORY_ZP || turns(UTF8PROC_BIDI_CLASS_LRE, UTF8PROC_BIDI_CLASS_LRO) ||
            turns(UTF8PROC_BIDI_CLASS_RLE, UTF8PROC_BIDI_CLASS_PDF) ||
            turns(UTF8PROC_BIDI_CLASS_LRI, UTF8PROC_BIDI_CLASS_PDI))
            return false;
        at += static_cast<std::size_t>(length);
    }
    return true;
}

}  // namespace gptq_test
