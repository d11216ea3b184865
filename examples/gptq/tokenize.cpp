// gptq tokenize: the tokens of a text.
#include <string>

#include <nlohmann/json.hpp>

#include <gptq/model/tokenizer.hpp>

#include "commands.hpp"
#include "output.hpp"
#include "text_file.hpp"

namespace program {

void tokenize(const tokenize_arguments& arguments) {
    const auto tokenizer = gptq::model::tokenizer::load(arguments.model);
    const auto ids = tokenizer.encode(read_text(arguments.text, tokenizer, arguments.model));
    if (arguments.json) return print_json({{"tokens", ids.size()}, {"ids", ids}});
    std::string lines;
    for (const auto id : ids) lines += std::to_string(id) + '\n';
    print(lines);
}

}  // namespace program
