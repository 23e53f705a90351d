/*
 * Logits to probabilities. Takes and gives numbers of any count.
 */
package io.pocketbert.core

import kotlin.math.exp

/** Shifted by the maximum, so that it cannot overflow. */
internal fun softmax(logits: FloatArray): FloatArray = softmax(logits, 1, 0, 1)

/** A softmax over each of `count` groups: group g starts at `g * first`, and its numbers are `step` apart. */
internal fun softmax(logits: FloatArray, count: Int, first: Int, step: Int): FloatArray {
    val size = logits.size / count
    val powers = FloatArray(logits.size)
    for (group in 0 until count) {
        val places = List(size) { group * first + it * step }
        val largest = places.maxOf { logits[it] }
        for (place in places) powers[place] = exp(logits[place] - largest)
        val sum = places.map { powers[it] }.sum()
        for (place in places) powers[place] /= sum
    }
    return powers
}

internal fun sigmoid(logits: FloatArray) = FloatArray(logits.size) { 1 / (1 + exp(-logits[it])) }
