// Writes a model's folder: tensors stream into safetensors shards, and the folder appears under its name only when it
// is complete and on the disk.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/io/tensor_sink.hpp>

namespace gptq::io {

/// Bytes of tensor data in a shard before the next one begins, as Hugging Face programs do it.
inline constexpr std::size_t default_shard_bytes = 4'000'000'000;

/// Throws io_error if there is anything of that name.
void refuse_existing(const std::filesystem::path& out);

namespace detail {

/// OUT without a separator at its end. Throws io_error for what is no name of a new folder.
std::filesystem::path new_folder_name(const std::filesystem::path& out);

/// Waits until the entries of a folder are on the disk.
void sync_folder(const std::filesystem::path& folder);

/// A name for a file that is not complete yet. What an earlier run left under it goes.
std::filesystem::path fresh_name(std::filesystem::path path);

/// Puts a complete file, which is on the disk, in the place of another or of none. Throws io_error if it cannot.
void replace_file(const std::filesystem::path& from, const std::filesystem::path& to);

/// Longer names and shapes of more dimensions are not written; both are far beyond what any model has.
inline constexpr std::size_t max_name_bytes = 4096;
inline constexpr std::size_t max_rank = 64;

/// One safetensors file whose tensors arrive one after another. The header comes before the data but is known last, so
/// room for it is left at the beginning. In the end the header is padded with spaces if that room is small beside the
/// data; otherwise the data is moved up to it.
class shard_writer {
 public:
    explicit shard_writer(const std::filesystem::path& path) : file_(path) {}

    const std::filesystem::path& path() const { return file_.path(); }
    std::size_t data_bytes() const { return data_bytes_; }

    /// False if the room for the header may not take another entry.
    bool has_room() const { return header_.size() + max_entry <= room - 16; }

    void add(std::string_view name, dtype type, std::span<const std::size_t> shape, std::span<const std::byte> bytes);

    /// Writes the header and waits until the file is on the disk.
    void close();

 private:
    /// Left for the length and the header: a few thousand tensors.
    static constexpr std::size_t room = std::size_t{512} << 10;
    /// Every byte of a name can become six (\u0001), every number has up to 20 digits.
    static constexpr std::size_t max_entry = 6 * max_name_bytes + 22 * max_rank + 256;

    void move_data_to(std::size_t target);

    output_file file_;
    std::string header_ = R"({"__metadata__":{"format":"pt"})";
    std::size_t data_bytes_ = 0;
};

}  // namespace detail

/// Writes a safetensors file, in the place of any that is there: what `fill` hands to its argument. It appears when it
/// is complete and on the disk. Throws format_error for more tensors than fit in one file, io_error for a full disk and
/// the like, and what `fill` throws.
void write_tensors(const std::filesystem::path& path, const std::function<void(const tensor_sink&)>& fill);

/// Writes a new folder OUT. Everything goes to a temporary folder beside it, OUT.partial-<random>, which finish()
/// renames once all is on the disk; a killed run leaves at most that folder, which does not hinder later runs and can
/// be deleted. Weights become model.safetensors, or model-0000i-of-0000n.safetensors with an index where they do not
/// fit in one shard. At most one tensor is in memory. After an exception from a writing member, finish() refuses.
class folder_writer {
 public:
    /// Throws io_error if OUT exists or its parent folder cannot be written to. A tensor larger than `shard_bytes` gets
    /// a shard of its own.
    explicit folder_writer(const std::filesystem::path& out, std::size_t shard_bytes = default_shard_bytes);
    folder_writer(const folder_writer&) = delete;
    folder_writer& operator=(const folder_writer&) = delete;

    /// The same with a temporary folder of that name, in the same file system. Throws io_error if it exists.
    folder_writer(const std::filesystem::path& out, std::filesystem::path temporary,
                  std::size_t shard_bytes = default_shard_bytes);

    /// Removes the temporary folder unless finish() was called.
    ~folder_writer();

    /// Where the folder will appear.
    const std::filesystem::path& path() const { return out_; }

    /// The weights' file gets this name in place of "model", as that of an adapter does: NAME.safetensors.
    void name_weights(std::string name) { weights_name_ = std::move(name); }

    /// Appends a tensor to the weights. Throws shape_error if `bytes` is not as long as type and shape need,
    /// format_error for a name that was used before or that cannot be written, io_error for a full disk and the like.
    void add_tensor(std::string_view name, dtype type, std::span<const std::size_t> shape,
                    std::span<const std::byte> bytes);

    /// Appends a tensor of another file as it is. Throws as add_tensor(), and io_error if it cannot be read.
    void copy_tensor(const tensor_info& tensor);

    /// add_tensor() for those who only write tensors. The writer must outlive it.
    tensor_sink sink();

    /// Writes a file directly in the folder. Throws format_error for a name that has a path in it, io_error if the file
    /// exists or cannot be written.
    void write_text(const std::string& name, std::string_view content);

    /// Copies a file into the folder under its own name; throws as write_text().
    void copy_file(const std::filesystem::path& source);

    /// Bytes of all tensors so far.
    std::size_t tensor_bytes() const { return total_bytes_; }

    /// Completes the weights, waits until everything is on the disk and gives the folder its name. Call once, last.
    /// Throws io_error, also if writing failed before or if OUT has appeared meanwhile.
    void finish();

 private:
    enum class state { good, failed, finished };

    /// False if a folder of that name exists.
    bool create_temporary() const;

    /// Runs something that writes; if it throws, the folder can no longer be finished.
    template <class Operation>
    void write(Operation&& operation) {
        if (state_ != state::good)
            throw io_error(out_.string() + (state_ == state::failed ? ": writing failed before; it cannot be completed"
                                                                    : ": is finished already"));
        state_ = state::failed;
        operation();
        state_ = state::good;
    }

    void check_tensor(std::string_view name, dtype type, std::span<const std::size_t> shape,
                      std::span<const std::byte> bytes) const;

    std::filesystem::path new_file(const std::string& name) const;

    void open_shard();

    void close_shard();

    /// The names contain the number of shards, so they are known only now.
    void name_shards();

    void rename_file(const std::filesystem::path& from, const std::string& name) const;

    static std::string five_digits(std::size_t number);

    std::filesystem::path out_;
    std::filesystem::path temporary_;
    std::size_t shard_bytes_;
    std::string weights_name_ = "model";
    state state_ = state::good;
    std::optional<detail::shard_writer> shard_;
    std::vector<std::filesystem::path> shards_;
    std::map<std::string, std::size_t, std::less<>> shard_of_;
    std::size_t total_bytes_ = 0;
};

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/folder_writer.hpp>
#endif
