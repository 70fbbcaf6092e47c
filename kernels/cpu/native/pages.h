// Self-attention K/V caches in pages of a few tokens: a text takes memory for its own length only, and texts that begin
// alike share pages.
#pragma once

#include <vector>

#include "ops.h"
#include "packed.h"

namespace tilewhisper {

// New tokens of one text: `count` rows of qkv from `first` on, after the `length` tokens in its cache.
struct NewTokens {
    int64_t first, count, length;
    float* const* pages;  // that hold the text, new tokens included
};

// The caches of a batch of texts. `slabs` are float32 (layers, 2, heads, pages, tokens of a page, head_dim) each, keys
// before values, all of one shape; `pages` are each text's pages, text by text, counted through all slabs. They hold
// the `lengths` tokens that are in each cache already and the `new_tokens`.
class PagedCaches {
   public:
    PagedCaches(const std::vector<Tensor>& slabs, const std::vector<int64_t>& pages, const std::vector<int64_t>& lengths,
                const std::vector<int64_t>& new_tokens) {
        STD_TORCH_CHECK(!slabs.empty(), "there must be a slab of pages");
        for (const Tensor& slab : slabs) check_slab(slab, slabs[0]);
        set_sizes(slabs[0]);
        std::vector<int64_t> counts = counts_of(lengths, new_tokens);
        const int64_t all = pages.size(), exist = slab_pages_ * static_cast<int64_t>(slabs.size());
        pages_.reserve(all);
        for (const int64_t page : pages) {
            STD_TORCH_CHECK(page >= 0 && page < exist, "a page must be one of ", exist, ", got ", page);
            pages_.push_back(mutable_floats(slabs[page / slab_pages_]) + page % slab_pages_ * tokens_ * head_dim_);
        }
        int64_t used = 0;
        for (size_t i = 0; i < counts.size(); ++i) {
            STD_TORCH_CHECK(counts[i] <= all - used, "a text of ", lengths[i] + new_tokens[i], " tokens must have ",
                            counts[i], " pages");
            texts_.push_back({tokens_in_all_, new_tokens[i], lengths[i], pages_.data() + used});
            used += counts[i];
            tokens_in_all_ += new_tokens[i];
            longest_ = std::max(longest_, lengths[i] + new_tokens[i]);
        }
        STD_TORCH_CHECK(used == all, "the texts must have ", used, " pages, got ", all);
    }
    PagedCaches(const PagedCaches&) = delete;

    int64_t layers() const { return layers_; }
    int64_t heads() const { return heads_; }
    int64_t head_dim() const { return head_dim_; }
    int64_t width() const { return heads_ * head_dim_; }
    int64_t longest() const { return longest_; }  // text, in tokens
    int64_t new_tokens() const { return tokens_in_all_; }
    const std::vector<NewTokens>& texts() const { return texts_; }

    // One head of a text's new tokens: their keys and values join its cache, and each token attends to itself and all
    // before it. A row of `qkv` has queries, keys and values of all heads; rows of `out` are width() apart.
    void attend(int64_t layer, int64_t head, const NewTokens& text, FloatRows qkv, float scale, float* scores,
                float* out) const {
        const int64_t column = head * head_dim_, of_head = slab_pages_ * tokens_ * head_dim_;
        const int64_t keys = (layer * 2 * heads_ + head) * of_head;
        const PagedKeysValues cache{text.pages, keys, keys + heads_ * of_head, tokens_, head_dim_};
        for (int64_t row = text.first, place = text.length; row < text.first + text.count; ++row, ++place) {
            const float* token = qkv.data + row * qkv.stride + column;
            std::copy_n(token + width(), head_dim_, cache.key(place));
            std::copy_n(token + 2 * width(), head_dim_, cache.value(place));
            kernels().self_attention(token, cache, place + 1, scale, scores, out + row * width() + column);
        }
    }

   private:
    static void check_slab(const Tensor& slab, const Tensor& first) {
        check_floats(slab, 6, "a slab");
        STD_TORCH_CHECK(slab.is_contiguous(), "a slab must be contiguous");
        for (int64_t i = 0; i < 6; ++i)
            STD_TORCH_CHECK(slab.size(i) == first.size(i) && slab.size(i) > 0, "slabs must have one shape, not empty");
        STD_TORCH_CHECK(slab.size(1) == 2, "a slab must have keys and values");
        check_head_dim(slab.size(5), "a slab");
    }

    void set_sizes(const Tensor& slab) {
        layers_ = slab.size(0);
        heads_ = slab.size(2);
        slab_pages_ = slab.size(3);
        tokens_ = slab.size(4);
        head_dim_ = slab.size(5);
    }

    // Each text's number of pages.
    std::vector<int64_t> counts_of(const std::vector<int64_t>& lengths, const std::vector<int64_t>& new_tokens) const {
        STD_TORCH_CHECK(lengths.size() == new_tokens.size(), "each text must have a length and new tokens");
        std::vector<int64_t> counts;
        for (size_t i = 0; i < lengths.size(); ++i) {
            check_range(lengths[i], 0, MAX_POSITIONS, "a text's length");
            check_range(new_tokens[i], 0, MAX_POSITIONS, "a text's new tokens");
            counts.push_back((lengths[i] + new_tokens[i] + tokens_ - 1) / tokens_);
        }
        return counts;
    }

    int64_t layers_, heads_, slab_pages_, tokens_, head_dim_;
    int64_t longest_ = 0, tokens_in_all_ = 0;
    std::vector<float*> pages_;
    std::vector<NewTokens> texts_;
};

}  // namespace tilewhisper
