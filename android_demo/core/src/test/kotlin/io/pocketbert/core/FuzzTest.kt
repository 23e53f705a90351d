/* A few seconds of fuzzing, always with the same bytes: `make fuzz` does it for as long as one likes, and learns from coverage. */
package io.pocketbert.core

import org.junit.Test
import java.util.Random
import kotlin.test.assertEquals

class FuzzTest {
    private val manifest = FakeBundle().manifestFile()
    private val golden = """{"tolerance": 0.1, "cases": [{"text": "good", "input_ids": [2, 4, 3], "oracle": {"int8": [1.5, -2, 0]}}]}"""

    private fun mutated(seed: ByteArray, chance: Random): ByteArray {
        var data = seed.copyOf()
        repeat(1 + chance.nextInt(3)) {
            val place = chance.nextInt(data.size + 1)
            data = when (chance.nextInt(4)) {
                0 -> data.copyOf(place)
                1 -> data.copyOfRange(0, place) + ByteArray(1 + chance.nextInt(6)).also(chance::nextBytes) + data.copyOfRange(place, data.size)
                2 -> data.copyOfRange(0, place) + "[{\"0-9.e\\}],".random(chance) + data.copyOfRange(place, data.size)
                else -> data.copyOf().also { if (place < it.size) it[place] = (it[place].toInt() xor (1 shl chance.nextInt(8))).toByte() }
            }
        }
        return data
    }

    private operator fun ByteArray.plus(letter: Char) = this + letter.code.toByte()

    private fun String.random(chance: Random) = this[chance.nextInt(length)]

    /** Every find of a few thousand inputs, one for each place where it comes from. */
    private fun finds(cases: Int, seeds: List<ByteArray>, target: (ByteArray) -> Unit): List<String> {
        val (chance, found) = Random(12) to LinkedHashMap<String, String>()
        repeat(cases) { case ->
            val data = mutated(seeds[case % seeds.size], chance)
            try {
                target(data)
            } catch (problem: Throwable) {
                found.putIfAbsent("${problem.javaClass.simpleName} ${problem.stackTrace.take(4)}", "${problem.message} for ${data.take(40)}")
            }
        }
        return found.map { "${it.key}: ${it.value}" }
    }

    @Test
    fun jsonIsReadOrRefused() = assertEquals(emptyList(), finds(20_000, listOf(golden.encodeToByteArray(), manifest), JsonFuzz::fuzzerTestOneInput))

    @Test
    fun safetensorsAreReadOrRefused() = assertEquals(emptyList(), finds(3_000, listOf(tensorFile()), TensorFileFuzz::fuzzerTestOneInput))

    @Test
    fun aManifestIsReadOrRefused() {
        val open = FakeBundle().manifest.encodeToByteArray()
        assertEquals(emptyList(), finds(10_000, listOf(manifest, open + 0), ManifestFuzz::fuzzerTestOneInput))
    }

    @Test
    fun goldenCasesAreReadOrRefused() = assertEquals(emptyList(), finds(5_000, listOf(golden.encodeToByteArray()), GoldenFuzz::fuzzerTestOneInput))

    @Test
    fun tablesAreRefusedOrLeadNoTextOutsideThem() {
        val chance = Random(12)
        val seeds = List(200) { ByteArray(1 + 5 * (1 + it % 3)).also(chance::nextBytes).also { data -> if (it % 2 == 0) for (at in 4 until data.size step 5) data[at] = 0 } }
        assertEquals(emptyList(), finds(5_000, seeds, TablesFuzz::fuzzerTestOneInput))
    }

    @Test
    fun everyTextBecomesIds() {
        val texts = listOf("0Good films\ud83d\ude00 [MASK] \u00e9\u0327 \uac00", "1\u4e2d\ud800\ud800 x".repeat(20)).map { it.encodeToByteArray() }
        assertEquals(emptyList(), finds(10_000, texts + texts.map { byteArrayOf(1) + it }, EncodeFuzz::fuzzerTestOneInput))
    }
}
