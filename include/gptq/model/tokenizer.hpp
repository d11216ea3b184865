// Reads a Hugging Face tokenizer.json and turns text into token ids and back, id for id as the `tokenizers` library.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/file.hpp>
#include <gptq/io/gguf.hpp>
#include <gptq/io/gguf_model.hpp>
#include <gptq/io/json.hpp>
#include <gptq/model/tokenizer_added_tokens.hpp>
#include <gptq/model/tokenizer_decoders.hpp>
#include <gptq/model/tokenizer_gguf.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_model.hpp>
#include <gptq/model/tokenizer_normalizers.hpp>
#include <gptq/model/tokenizer_pretokenizers.hpp>
#include <gptq/model/tokenizer_sentencepiece.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {

/// Text to token ids and back, as a tokenizer.json describes it: byte-level BPE (GPT-2, SmolLM2, Llama 3, Qwen, OPT),
/// SentencePiece's BPE (Llama 1 and 2, Mistral, Gemma) and Unigram (T5, XLM-R, ALBERT), and BERT's WordPiece.
///
/// Immutable and cheap to copy; one tokenizer may be used from several threads at once. What a file asks for beyond
/// what is implemented is refused when it is loaded, by name. "truncation" and "padding" are not applied.
class tokenizer {
 public:
    /// Reads tokenizer.json and, where present, tokenizer_config.json and special_tokens_map.json of a model's folder;
    /// tokenizer.model, SentencePiece's file, where there is no tokenizer.json. A GGUF file has its own in its
    /// metadata. Throws io_error if tokenizer.json cannot be read, format_error if a file is not what it claims to be,
    /// and unsupported_error if it asks for something that is not implemented; the message names the file and the
    /// place.
    static tokenizer load(const std::filesystem::path& folder);

    /// The ids of `text`, without the special tokens that a template would put around it. Added tokens that occur in
    /// the text become their ids, special or not. Bytes that are not UTF-8 count as U+FFFD, one for each ill-formed
    /// sequence; every other byte, NUL included, is text. About O(n log n).
    std::vector<std::int32_t> encode(std::string_view text) const;

    /// The text of `ids`, valid UTF-8: a character that is cut off by the end of `ids` becomes U+FFFD. `skip_special`
    /// leaves out special added tokens. Ids without a token give nothing: some models have more rows than tokens.
    std::string decode(std::span<const std::int32_t> ids, bool skip_special = true) const;

    /// The token that begins a text, if the configuration names one that exists (or else the template does).
    std::optional<std::int32_t> bos_id() const { return data_->bos; }

    /// The token that ends a text, if the configuration names one that exists.
    std::optional<std::int32_t> eos_id() const { return data_->eos; }

    /// Whether those who load this tokenizer with its own settings get a beginning-of-text token before every text:
    /// the post_processor's template for one text begins with one, unless tokenizer_config.json has "add_bos_token" for
    /// a class that builds its template from it (Llama, CodeLlama and Gemma), which then decides.
    ///
    /// encode() never adds it; encode_whole() does.
    bool always_adds_bos() const { return data_->adds_bos; }

    /// The ids of a whole text with the beginning-of-text token at its head where always_adds_bos() says so and the
    /// text does not begin with that token's own text: what a model of this tokenizer was trained to read.
    std::vector<std::int32_t> encode_whole(std::string_view text) const;

    /// One more than the largest id that encode() can give.
    std::size_t vocab_size() const { return data_->vocab_size; }

 private:
    struct named_token {
        std::string text;  ///< As the decoder wants it.
        bool special = false;
    };

    /// Everything that was read.
    struct contents {
        detail::normalizer normalize;
        detail::pre_tokenizer pre_tokenize;
        detail::token_model model;
        detail::added_tokens added;
        detail::token_decoder join;
        std::unordered_map<std::int32_t, named_token> tokens;  ///< By id: a file may name any id, and only a few.
        std::size_t vocab_size = 0;
        std::optional<std::int32_t> bos{};
        std::optional<std::int32_t> eos{};
        bool adds_bos = false;

        explicit contents(const detail::json_node& file);

        /// An id means one token, wherever in the file it stands.
        void name_token(std::int32_t id, const std::string& token, const detail::json_node& place);

        std::optional<std::int32_t> id_of(const std::string& token) const;
    };

    explicit tokenizer(std::shared_ptr<const contents> data) : data_(std::move(data)) {}

    /// `file` is tokenizer.json. Names of tokens are in the first of `configs` that has them, tokenizer_config.json
    /// first.
    static tokenizer from(const detail::json_node& file, std::span<const detail::json_node> configs);

    static std::optional<std::int32_t> leading_special(const detail::json_node& post_processor, int depth = 0);
    static std::optional<std::int32_t> configured_token(const contents& data,
                                                        std::span<const detail::json_node> configs, const char* key);
    static bool template_from_config(const detail::json_node& config);

    static nlohmann::json read_if_present(const std::filesystem::path& path);

    /// The tokenizer.json that SentencePiece's file amounts to.
    static nlohmann::json read_sentencepiece(const std::filesystem::path& folder, const detail::json_node& config);

    std::shared_ptr<const contents> data_;
};

inline std::vector<std::int32_t> tokenizer::encode(std::string_view text) const {
    std::vector<std::int32_t> ids;
    detail::token_model::encoder words(data_->model);
    const auto add_token = [&](std::int32_t id) { ids.push_back(id); };
    const std::string clean = detail::repair_utf8(text);
    const auto encode_raw = [&](std::string_view raw, std::size_t raw_begin) {
        const auto encode_normalized = [&](std::string_view normalized, std::size_t begin) {
            const auto cut = data_->pre_tokenize(std::string(normalized), raw_begin == 0 && begin == 0);
            for (const auto& word : cut.words) words.encode(cut.view(word.range), ids);
        };
        data_->added.split_normalized(data_->normalize(std::string(raw)), encode_normalized, add_token);
    };
    data_->added.split_raw(clean, encode_raw, add_token);
    return ids;
}

inline std::string tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
    detail::token_list tokens;
    tokens.reserve(ids.size());
    for (const std::int32_t id : ids) {
        const auto named = data_->tokens.find(id);
        if (named == data_->tokens.end() || (skip_special && named->second.special)) continue;
        tokens.push_back(named->second.text);
    }
    return data_->join(std::move(tokens));
}

/// The id of the special token with which a post-processor begins a single text.
inline std::optional<std::int32_t> tokenizer::leading_special(const detail::json_node& node, int depth) {
    if (node.is_null()) return std::nullopt;
    const std::string type = node["type"].text();
    if (type == "ByteLevel") return std::nullopt;
    if (type == "Sequence") {
        if (depth == detail::max_nesting) node.fail("sequences nested too deep");
        for (const auto& child : node["processors"].items()) {
            if (const auto id = leading_special(child, depth + 1)) return id;
        }
        return std::nullopt;
    }
    if (type == "RobertaProcessing" || type == "BertProcessing") {
        const auto cls = node["cls"].items();  // ["<s>", 0]
        if (cls.size() != 2) node["cls"].fail("expected a token and its id");
        return cls[1].number(detail::max_token_id);
    }
    if (type != "TemplateProcessing") node.refuse("post-processor " + in_quotes(type) + " is not supported");
    const auto pieces = node["single"].items();
    if (pieces.empty() || pieces.front()["SpecialToken"].is_null()) return std::nullopt;
    const std::string name = pieces.front()["SpecialToken"]["id"].text();
    const auto ids = node["special_tokens"][name.c_str()]["ids"].items();
    if (ids.empty()) node.fail("the template's token " + in_quotes(name) + " has no ids");
    return ids.front().number(detail::max_token_id);
}

/// The id of the token under `key` in the first of the files that names one: "<s>" or {"content": "<s>", ...}.
inline std::optional<std::int32_t> tokenizer::configured_token(const contents& data,
                                                               std::span<const detail::json_node> configs,
                                                               const char* key) {
    for (const auto& config : configs) {
        const auto entry = config[key];
        if (entry.is_null()) continue;
        return data.id_of(entry.value().is_object() ? entry["content"].text() : entry.text());
    }
    return std::nullopt;
}

/// Whether the tokenizer's class in transformers builds its template from the flags of its tokenizer_config.json.
inline bool tokenizer::template_from_config(const detail::json_node& config) {
    const auto name = config["tokenizer_class"].optional_text().value_or("");
    constexpr std::array<std::string_view, 3> families{"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"};
    return std::any_of(families.begin(), families.end(),
                       [&](std::string_view family) { return name == family || name == std::string(family) + "Fast"; });
}

/// The file's content, or an empty object where there is none.
inline nlohmann::json tokenizer::read_if_present(const std::filesystem::path& path) {
    std::error_code ignored;
    return std::filesystem::exists(path, ignored) ? io::read_json(path) : nlohmann::json::object();
}

inline nlohmann::json tokenizer::read_sentencepiece(const std::filesystem::path& folder,
                                                    const detail::json_node& config) {
    const auto path = folder / "tokenizer.model";
    const auto more_document = read_if_present(folder / "added_tokens.json");
    const detail::json_node more(more_document, (folder / "added_tokens.json").string());
    const auto named_class = config["tokenizer_class"].optional_text();
    const bool with_bos = config["add_bos_token"].flag(!named_class || template_from_config(config));
    const auto parsed = detail::parse_sentencepiece(io::read_text_file(path, io::max_json_bytes), path.string());
    return detail::sentencepiece_document(parsed, config, more, with_bos);
}

inline tokenizer tokenizer::from(const detail::json_node& file, std::span<const detail::json_node> configs) {
    auto data = std::make_shared<contents>(file);
    const auto leading = leading_special(file["post_processor"]);
    data->bos = configured_token(*data, configs, "bos_token");
    if (!data->bos) data->bos = leading;
    data->eos = configured_token(*data, configs, "eos_token");
    data->adds_bos = leading && leading == data->bos;
    const auto flag = configs.front()["add_bos_token"];
    if (data->bos && !flag.is_null() && template_from_config(configs.front())) data->adds_bos = flag.flag(false);
    return tokenizer(std::move(data));
}

inline tokenizer tokenizer::load(const std::filesystem::path& folder) {
    if (io::is_gguf(folder)) {
        const auto document = detail::gguf_tokenizer(io::gguf_file(folder));
        const detail::json_node file(document, folder.string());
        return from(file, {&file, 1});
    }
    const auto config_document = read_if_present(folder / "tokenizer_config.json");
    const auto map_document = read_if_present(folder / "special_tokens_map.json");
    const detail::json_node config(config_document, (folder / "tokenizer_config.json").string());
    std::error_code ignored;
    const bool sentencepiece = !std::filesystem::exists(folder / "tokenizer.json", ignored) &&
                               std::filesystem::exists(folder / "tokenizer.model", ignored);
    const auto path = folder / (sentencepiece ? "tokenizer.model" : "tokenizer.json");
    detail::require_tokenizer_file(path);
    const auto document = sentencepiece ? read_sentencepiece(folder, config) : io::read_json(path);
    const detail::json_node file(document, path.string());
    std::vector<detail::json_node> configs{
        config, detail::json_node(map_document, (folder / "special_tokens_map.json").string())};
    if (sentencepiece) configs.push_back(file);  // it names its own tokens
    return from(file, configs);
}

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer.hpp>
#endif
